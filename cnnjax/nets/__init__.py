"""NETS: the networks by name, each a card with the choices it was published with.

    card = NETS["cnn"]
    net = card.module(num_classes=10, pool=pool, **card.defaults)

A new network is one file and one row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
from flax.core import FrozenDict

from cnnjax.nets.cnn import CNN


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network family: its module, what it was published with, and where it comes from."""

    module: Callable[..., nn.Module]
    summary: str
    source: str
    pooling: Mapping[str, Any]
    defaults: Mapping[str, Any]


NETS: Mapping[str, Network] = {
    "cnn": Network(
        module=CNN,
        summary="n x (convolution, rectifier, pool), full connection, softmax",
        source="Wu 2017, Introduction to Convolutional Neural Networks",
        pooling=FrozenDict(method="max", window=2, stride=2),
        defaults=FrozenDict(
            widths=(32, 64, 128),
            kernel_size=3,
            dense=(128,),
            padding="SAME",
            head="flatten",
            norm="none",
            activation="relu",
        ),
    ),
    "lenet5_modern": Network(
        module=CNN,
        summary="LeNet-5's sizes with ReLU, max pooling, full connections and softmax",
        source="LeCun et al. 1998, fig. 2, in the form taught today",
        pooling=FrozenDict(method="max", window=2, stride=2),
        defaults=FrozenDict(
            widths=(6, 16),
            kernel_size=5,
            dense=(120, 84),
            padding="SAME",
            head="flatten",
            norm="none",
            activation="relu",
        ),
    ),
}

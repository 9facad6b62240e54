"""Network: what a network is, takes, counts and cites; the rows of NETS.

card = NETS["resnet18"]
net = card.module(num_classes=10, pool=Downsampling("aps"), **card.defaults)
card.image, card.classes, card.parameters     # (224, 224, 3), 1000, 11689512
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
from flax.core import FrozenDict

from cnnjax.nets.blocks import Downsampling

UNPRINTED = "none printed: He 2015"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network: its module, its published choices and size, and where it comes from.

    `defaults` are the arguments that a study may choose; None there is each layer's own. `pooling`
    is what all its sites were published with, as far as they agree. `parameters` counts the trained
    values for images of `image` (H, W, C) and `classes`; auxiliary heads, which training alone
    uses, are not among them. `weights` says how the initial ones are drawn as published.
    """

    module: Callable[..., nn.Module]
    summary: str
    source: str
    image: tuple[int, int, int]
    classes: int
    parameters: int
    defaults: Mapping[str, Any]
    pooling: Downsampling = field(default=Downsampling())
    weights: str = UNPRINTED


def network(
    module: Callable[..., nn.Module],
    summary: str,
    *,
    source: str,
    parameters: int,
    image: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    pooling: Downsampling | None = None,
    weights: str = UNPRINTED,
    **choices: Any,
) -> Network:
    """Return the card; `choices` are the published ones where they differ from the plain ones."""
    plain = {
        "padding": None,
        "head": "flatten",
        "norm": "none",
        "activation": "relu",
        "dropout": None,
        "initializer": None,
    }
    return Network(
        module=module,
        summary=summary,
        source=source,
        image=image,
        classes=classes,
        parameters=parameters,
        defaults=FrozenDict(plain | choices),
        pooling=pooling or Downsampling(),
        weights=weights,
    )

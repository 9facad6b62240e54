"""The teaching stack: x (N, H, W, C) -> logits (N, num_classes).

net = CNN(num_classes=10, widths=(32, 64, 128), pool=Downsampling("max", 2, 2))
variables = net.init(key, x, train=False)
logits = net.apply(variables, x, train=False)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax

from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.card import Network, network
from cnnjax.nets.classifier import Classifier
from cnnjax.ops import padding as pads

MAX = Downsampling("max", 2, 2, "SAME")


class CNN(Classifier, kw_only=True):
    """n x (convolution, rectifier, pool), head, full connections, logits (Wu 2017).

    The last stage has the pool `last_pool`, None for the one of all others.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    kernel_size: int | pads.Pair = 3
    dense: tuple[int, ...] = (128,)
    last_pool: Downsampling | None = None
    published_padding: ClassVar[str] = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        last = len(self.widths) - 1
        for index, width in enumerate(self.widths):
            x = self.block(
                x,
                width,
                self.kernel_size,
                train=train,
                name=f"stage{index}",
                padding=self.published_padding,
                pool=MAX,
                chosen=self.last_pool if index == last else None,
            )
        return self.classify(x, train=train, dense=self.dense)


TEACHING: Mapping[str, Any] = {
    "classes": 10,
    "pooling": Downsampling("max", window=2, stride=2),
    "widths": (32, 64, 128),
    "kernel_size": 3,
    "dense": (128,),
    "last_pool": None,
    "padding": "SAME",
    "dropout": 0.0,
}
CARDS: Mapping[str, Network] = {
    "cnn": network(
        CNN,
        summary="n x (convolution, rectifier, pool), full connection, softmax",
        source="Wu 2017, Introduction to Convolutional Neural Networks",
        image=(32, 32, 3),
        parameters=356_810,
        **TEACHING,
    ),
}

"""VGG (Simonyan and Zisserman 2015): x (N, 224, 224, 3) -> logits (N, 1000).

    net = VGG(num_classes=1000, blocks=(2, 2, 3, 3, 3))                  # VGG-16, 138,357,544
    net = VGG(num_classes=10, blocks=(2, 2, 2, 2, 2), norm="batch", dense=())       # for CIFAR

Stages of 3 x 3 convolutions, a 2/2 maximum after each. Chosen where the paper leaves it open: the
pools pad with zeros, which shows at odd sizes alone; weights start as Glorot and Bengio 2010 say,
which the paper found to do without its pre-training (section 3.1), uniform of variance 2 / (fan-in
+ fan-out); convolutions keep their biases before batch normalisation, as in the models in common
use; the first full connection sees every place of the last map.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.card import Network, network
from cnnjax.nets.classifier import Classifier

MAX = Downsampling("max", 2, 2, "ZEROS")
GLOROT = nn.initializers.glorot_uniform()


class VGG(Classifier, kw_only=True):
    """`blocks[i]` convolutions of `widths[i]` features, then a pool; dropout 0.5."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    dense: tuple[int, ...] = (4096, 4096)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        widths = self.sizes("widths", len(self.blocks))
        for stage, (count, width) in enumerate(zip(self.blocks, widths, strict=True)):
            for index in range(count):
                last = index == count - 1
                name = f"stage{stage}_conv{index}"
                pool = MAX if last else None
                x = self.block(x, width, 3, pool=pool, kernel_init=GLOROT, train=train, name=name)
        dropout = 0.5 if self.dense else 0.0
        return self.classify(x, train=train, dense=self.dense, dropout=dropout, kernel_init=GLOROT)


BLOCKS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
COUNTS = {
    11: (132_863_336, 132_868_840),
    13: (133_047_848, 133_053_736),
    16: (138_357_544, 138_365_992),
    19: (143_667_240, 143_678_248),
}
PAPER = "Simonyan and Zisserman 2015, Very deep convolutional networks"


def _card(depth: int, **published: Any) -> Network:
    return network(
        functools.partial(VGG, blocks=BLOCKS[depth]),
        pooling=Downsampling("max", window=2, stride=2),
        widths=VGG.widths,
        weights="Glorot 2010, as section 3.1 notes",
        **published,
    )


def _pair(depth: int) -> dict[str, Network]:
    summary = f"{depth} layers with weights, 3 x 3 kernels"
    plain, normed = COUNTS[depth]
    whole: dict[str, Any] = {"source": PAPER, "dense": VGG.dense}
    return {
        f"vgg{depth}": _card(depth, summary=summary, parameters=plain, **whole),
        f"vgg{depth}_bn": _card(
            depth,
            summary=f"{summary}, batch normalisation",
            parameters=normed,
            norm="batch",
            **whole,
        ),
    }


CARDS: Mapping[str, Network] = {
    **{name: card for depth in BLOCKS for name, card in _pair(depth).items()},
    "vgg13bn_cifar": _card(
        13,
        summary="vgg13_bn for 32 x 32 images, one full connection",
        source=f"{PAPER}; Zhang 2019, Making convolutional networks shift-invariant again",
        image=(32, 32, 3),
        classes=10,
        parameters=9_416_010,
        norm="batch",
        dense=(),
    ),
}

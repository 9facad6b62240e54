"""Residual networks (He et al. 2016): x (N, H, W, C) -> logits (N, num_classes).

    net = ResNet(num_classes=1000, blocks=(2, 2, 2, 2))                      # 18, 11,689,512
    net = ResNet(num_classes=1000, blocks=(3, 4, 6, 3), bottleneck=True)     # 50, 25,557,032
    net = ResNet(num_classes=10, blocks=(3, 3, 3), widths=(16, 32, 64), stem="small",
                 shortcut="pad")                                             # CIFAR's 20, 0.27 M

Chosen where the paper leaves it open: a bottleneck's stride is at its 3 x 3 convolution, as in the
models in common use (the paper's is at the first 1 x 1); a shortcut is pooled before it is
projected, which for decimation is the strided projection; where a pool selects a phase by content,
the shortcut takes that of its branch. Convolutions start as the paper's reference [13] says, He et
al. 2015, in the form that keeps gradients: normal of variance 2 / (kernel size x features), as in
the models in common use.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers.activations import ACTIVATIONS
from cnnjax.layers.norms import has_bias
from cnnjax.nets.blocks import ConvBlock, Downsampling, Initializer
from cnnjax.nets.card import Network, network
from cnnjax.nets.classifier import Classifier
from cnnjax.ops import padding as pads

STRIDED = Downsampling("decimate", stride=2, padding="ZEROS")
STEM_POOL = Downsampling("max", 3, 2, "ZEROS")
EXPANSION = 4


class Residual(nn.Module, kw_only=True):
    """A residual block, plain or bottleneck: x -> rectifier(branch(x) + shortcut(x)).

    `shortcut` is "projection" (the paper's option B) or "pad" (option A: no parameters, the new
    channels are 0); a pool that widens the map beyond `features` needs a projection.
    """

    features: int
    bottleneck: bool
    shortcut: str
    padding: pads.Padding
    norm: str
    activation: str
    kernel_init: Initializer
    pool: Downsampling | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        branch, phase = self._branch(x, train)
        activation = ACTIVATIONS[self.activation]
        return activation(branch + self._shortcut(x, phase, train))

    def _branch(self, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        if not self.bottleneck:
            x, phase = self._conv(3, 0, pool=self.pool).with_phase(x, train=train)
            return self._conv(3, 1, activation="identity")(x, train=train), phase
        x = self._conv(1, 0)(x, train=train)
        x, phase = self._conv(3, 1, pool=self.pool).with_phase(x, train=train)
        last = self._conv(1, 2, features=self._outputs, activation="identity")
        return last(x, train=train), phase

    def _shortcut(self, x: jax.Array, phase: Any, train: bool) -> jax.Array:
        if self.pool is not None:
            x = self.pool.alike(x, phase, name="shortcut_pool", train=train)
        missing = self._outputs - x.shape[-1]
        if missing == 0:
            return x
        if self.shortcut == "pad" and missing > 0:
            return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
        project = self._conv(1, None, features=self._outputs, activation="identity")
        return project(x, train=train)

    def _conv(self, kernel_size: int, index: int | None, **choices: Any) -> ConvBlock:
        fields: dict[str, Any] = {"features": self.features, "activation": self.activation}
        return ConvBlock(
            kernel_size=kernel_size,
            padding=self.padding,
            norm=self.norm,
            use_bias=not has_bias(self.norm),
            kernel_init=self.kernel_init,
            name="projection" if index is None else f"conv{index}",
            **(fields | choices),
        )

    @property
    def _outputs(self) -> int:
        return self.features * (EXPANSION if self.bottleneck else 1)


class ResNet(Classifier, kw_only=True):
    """Stem, stages of residual blocks, mean over all places, one full connection.

    `stem` is "large" (7 x 7 of stride 2, then a 3/2 maximum) or "small" (3 x 3, no downsampling).
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    stem: str = "large"
    shortcut: str = "projection"
    head: str = "gap"
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = self._stem(x, train)
        widths = self.sizes("widths", len(self.blocks))
        for stage, (count, width) in enumerate(zip(self.blocks, widths, strict=True)):
            for index in range(count):
                lowers = stage > 0 and index == 0
                block = Residual(
                    features=width,
                    bottleneck=self.bottleneck,
                    shortcut=self.shortcut,
                    padding="ZEROS" if self.padding is None else self.padding,
                    norm=self.norm,
                    activation=self.activation,
                    kernel_init=self.weights(self._published()),
                    pool=self.pool.at(STRIDED) if lowers else None,
                    name=f"stage{stage}_block{index}",
                )
                x = block(x, train=train)
        return self.classify(x, train=train)

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        layer = functools.partial(
            self.block,
            use_bias=not has_bias(self.norm),
            kernel_init=self._published(),
            train=train,
            name="stem",
        )
        if self.stem == "small":
            return layer(x, self.widths[0], 3)
        x = layer(x, self.widths[0], 7, pool=STRIDED)
        return self.lower(x, STEM_POOL, train=train, name="stem_pool")

    def _published(self) -> Initializer:
        return ACTIVATIONS[self.activation].initializer("fan_out")


PAPER = "He et al. 2016, Deep residual learning for image recognition"
WEIGHTS = "He 2015, by fan-out"
LARGE: Mapping[int, tuple[tuple[int, ...], bool, int]] = {
    18: ((2, 2, 2, 2), False, 11_689_512),
    34: ((3, 4, 6, 3), False, 21_797_672),
    50: ((3, 4, 6, 3), True, 25_557_032),
    101: ((3, 4, 23, 3), True, 44_549_160),
    152: ((3, 8, 36, 3), True, 60_192_808),
}
SMALL = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


def _large(depth: int) -> Network:
    blocks, bottleneck, parameters = LARGE[depth]
    return network(
        functools.partial(ResNet, blocks=blocks, bottleneck=bottleneck),
        summary=f"{depth} layers, {'bottleneck' if bottleneck else 'plain'} blocks",
        source=PAPER,
        parameters=parameters,
        weights=WEIGHTS,
        head="gap",
        norm="batch",
        widths=ResNet.widths,
    )


def _small(depth: int) -> Network:
    blocks = ((depth - 2) // 6,) * 3
    return network(
        functools.partial(ResNet, blocks=blocks, stem="small", shortcut="pad"),
        summary=f"{depth} layers for 32 x 32 images, shortcuts without parameters",
        source=f"{PAPER}, section 4.2",
        image=(32, 32, 3),
        classes=10,
        parameters=SMALL[depth],
        weights=WEIGHTS,
        head="gap",
        norm="batch",
        widths=(16, 32, 64),
    )


CARDS: Mapping[str, Network] = {
    **{f"resnet{depth}": _large(depth) for depth in LARGE},
    **{f"resnet{depth}_cifar": _small(depth) for depth in SMALL},
    "resnet18_cifar": network(
        functools.partial(ResNet, blocks=(2, 2, 2, 2), stem="small"),
        summary="resnet18 with a 3 x 3 stem and no pool, for 32 x 32 images",
        source=f"{PAPER}; Chaman and Dokmanic 2021, Truly shift-invariant CNNs",
        image=(32, 32, 3),
        classes=10,
        parameters=11_173_962,
        weights=WEIGHTS,
        head="gap",
        norm="batch",
        widths=ResNet.widths,
    ),
}

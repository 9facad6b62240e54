"""What networks are made of: Downsampling (an axis of the study) and ConvBlock (one stage).

    pool = Downsampling("max", window=3, stride=2, padding="CIRCULAR")
    x = ConvBlock(32, kernel_size=3, padding="CIRCULAR", pool=pool, name="stage0")(x, train=train)

Two arms of a study differ in the Downsampling and in nothing else: convolutions always have stride
one here, and what lowers the resolution is always the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
from flax.core import FrozenDict

from cnnjax.layers.activations import ACTIVATIONS
from cnnjax.layers.conv import Conv
from cnnjax.layers.pooling import POOLS, Pool
from cnnjax.ops import padding as pads

POSITIONS = ("after_conv", "after_activation")
NORMS = ("none", "batch", "layer", "group")


@dataclass(frozen=True)
class Downsampling:
    """A pooling method with its arguments; compares by value, so equal arms share a compilation."""

    method: str
    window: int | pads.Pair | None = None
    stride: int | pads.Pair | None = None
    padding: pads.Padding | None = None
    params: Mapping[str, object] = FrozenDict()
    position: str | None = None

    def module(self, name: str) -> nn.Module:
        """Return the Linen module of this pool under `name`."""
        return Pool(
            self.method,
            window=self.window,
            stride=self.stride,
            padding=self.padding,
            name=name,
            **self.params,
        )

    @property
    def place(self) -> str:
        """Where it sits: as told, else where the method's card prefers it."""
        return self.position or POOLS[self.method].position

    @property
    def is_strided_convolution(self) -> bool:
        """True where the convolution before can skip what decimation would throw away."""
        return self.method == "decimate" and self.place == "after_conv"


class ConvBlock(nn.Module):
    """Convolution, normalisation, rectifier, pool: x (..., H, W, C) -> (..., H', W', features)."""

    features: int
    kernel_size: int | pads.Pair = 3
    padding: str = "SAME"
    norm: str = "none"
    activation: str = "relu"
    pool: Downsampling | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self._convolve(x)
        x = self._pool_at("after_conv", x, train)
        x = normalize(x, self.norm, train=train)
        x = ACTIVATIONS[self.activation](x)
        return self._pool_at("after_activation", x, train)

    def _convolve(self, x: jax.Array) -> jax.Array:
        window = pads.pair(self.kernel_size, "kernel_size")
        stride: pads.Pair = (1, 1)
        padding: pads.Padding = self.padding
        if self.pool is not None and self.pool.is_strided_convolution:
            # Padding as for stride one: only then is the strided convolution the decimated one.
            stride = pads.pair(self.pool.stride, "stride")
            padding = _stride_one_padding(self.padding, x, window)
        conv = Conv(
            self.features,
            window,
            strides=stride,
            padding=padding,
            kernel_init=ACTIVATIONS[self.activation].initializer(),
            name="conv",
        )
        return conv(x)

    def _pool_at(self, place: str, x: jax.Array, train: bool) -> jax.Array:
        pool = self.pool
        if pool is None or pool.place != place or pool.is_strided_convolution:
            return x
        return pool.module("pool")(x, train=train)


def normalize(x: jax.Array, norm: str, *, train: bool) -> jax.Array:
    """Apply batch, layer or group normalisation (or none) inside a compact module."""
    if norm == "none":
        return x
    if norm == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
    if norm == "layer":
        return nn.LayerNorm(name="norm")(x)
    return nn.GroupNorm(num_groups=min(32, x.shape[-1]), name="norm")(x)


def _stride_one_padding(padding: str, x: jax.Array, window: pads.Pair) -> pads.Padding:
    # SAME alone depends on the stride; the other rules name the same border for every stride.
    if padding != "SAME":
        return padding
    return pads.amounts(pads.spatial_size(x), window, (1, 1), "SAME")

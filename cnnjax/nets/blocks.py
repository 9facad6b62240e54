"""What networks are made of: Downsampling (an axis of the study) and ConvBlock (one stage).

    site = study.at(Downsampling("max", window=3, stride=2, padding="ZEROS"))
    x = ConvBlock(32, kernel_size=3, padding="CIRCULAR", pool=site, name="stage0")(x, train=train)

A network says at each of its sites what it was published with, study.at(published); what the study
leaves open comes from there. Two arms of a study differ in the Downsampling and in nothing else:
convolutions always have stride one here, and what lowers the resolution is always the pool. A
strided convolution is the pool "decimate" directly after a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
from flax.core import FrozenDict

from cnnjax.layers import norms
from cnnjax.layers.activations import ACTIVATIONS
from cnnjax.layers.card import PoolingMethod
from cnnjax.layers.conv import Conv
from cnnjax.layers.norms import NORMS
from cnnjax.layers.pooling import POOLS, Pool
from cnnjax.ops import padding as pads
from cnnjax.ops import polyphase

__all__ = ["NORMS", "POSITIONS", "ConvBlock", "Downsampling"]

POSITIONS = ("after_conv", "after_activation")
Size = int | pads.Pair | None
Initializer = Callable[..., jax.Array]
ZERO = nn.initializers.zeros_init()


@dataclass(frozen=True)
class Downsampling:
    """A pooling method with its arguments; compares by value, so equal arms share a compilation.

    None is open: `at` fills it in.
    """

    method: str | None = None
    window: Size = None
    stride: Size = None
    padding: pads.Padding | None = None
    params: Mapping[str, object] = FrozenDict()
    position: str | None = None

    def at(self, published: Downsampling) -> Downsampling:
        """Return what stands at a site that was published as told: this, completed from there.

        Arguments that the method does not take are dropped. A window that neither gives is the
        stride's; padding that the method is not made for gives way to the method's own.
        """
        method = self.method or published.method
        params = self.params if self.method else published.params
        card = POOLS[str(method)].given(params)
        padding = _first(self.padding, published.padding)
        position = published.position if method == published.method else None
        return replace(
            self,
            method=method,
            window=_first(self.window, published.window) if "window" in card.takes else None,
            stride=_first(self.stride, published.stride) if "stride" in card.takes else None,
            padding=padding if _suits(padding, card) else None,
            params=params,
            position=self.position or position,
        )

    @property
    def card(self) -> PoolingMethod:
        """The method's row of POOLS."""
        return POOLS[str(self.method)]

    def module(self, name: str) -> nn.Module:
        """Return the Linen module of this pool under `name`."""
        return Pool(
            str(self.method),
            window=self.window,
            stride=self.stride,
            padding=self.padding,
            name=name,
            **self.params,
        )

    def __call__(self, x: jax.Array, *, name: str, train: bool) -> tuple[jax.Array, Any]:
        """Pool inside a compact module: the map and the phase (None where none is selected)."""
        module: Any = self.module(name)
        if self.card.phased:
            return module(x, train=train, return_phase=True)
        return module(x, train=train), None

    def alike(self, x: jax.Array, phase: Any, *, name: str, train: bool) -> jax.Array:
        """Pool another map at the phase that this pool selected elsewhere (a shortcut)."""
        module: Any = self.module(name)
        if phase is None:
            return module(x, train=train)
        if self.card.layer is not None:
            # Its parameters only choose the phase, which is given here.
            return polyphase.sample(x, phase, stride=module.stride)
        return module(x, train=train, phase=phase)

    @property
    def place(self) -> str:
        """Where it sits: as told, else where the method's card prefers it."""
        return self.position or self.card.position

    @property
    def is_strided_convolution(self) -> bool:
        """True where the convolution before can skip what decimation would throw away."""
        return self.method == "decimate" and self.place == "after_conv"


class ConvBlock(nn.Module):
    """Convolution, normalisation, rectifier, pool: x (..., H, W, C) -> (..., H', W', features)."""

    features: int
    kernel_size: int | pads.Pair = 3
    padding: pads.Padding = "SAME"
    norm: str = "none"
    activation: str = "relu"
    pool: Downsampling | None = None
    use_bias: bool = True
    groups: int = 1
    epsilon: float = 1e-5
    kernel_init: Initializer | None = None
    bias_init: Initializer = ZERO
    convolution: Callable[..., nn.Module] = Conv

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return self.with_phase(x, train=train)[0]

    @nn.compact
    def with_phase(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, Any]:
        """Return the map and the phase that its pool selected, None where it selects none."""
        x = self._convolve(x)
        x, phase = self._pool_at("after_conv", x, train)
        x = self._normalize(x, train, after=False)
        x = ACTIVATIONS[self.activation](x)
        x = self._normalize(x, train, after=True)
        x, late = self._pool_at("after_activation", x, train)
        return x, late if phase is None else phase

    def _convolve(self, x: jax.Array) -> jax.Array:
        window = pads.pair(self.kernel_size, "kernel_size")
        stride: pads.Pair = (1, 1)
        padding: pads.Padding = self.padding
        if self.pool is not None and self.pool.is_strided_convolution:
            # Padding as for stride one: only then is the strided convolution the decimated one.
            stride = pads.pair(self.pool.stride, "stride")
            padding = _stride_one_padding(self.padding, x, window)
        conv: Any = self.convolution(
            features=self.features,
            kernel_size=window,
            strides=stride,
            padding=padding,
            feature_group_count=self.groups,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init or ACTIVATIONS[self.activation].initializer(),
            bias_init=self.bias_init,
            name="conv",
        )
        return conv(x)

    def _normalize(self, x: jax.Array, train: bool, *, after: bool) -> jax.Array:
        if (self.norm in norms.AFTER_ACTIVATION) != after:
            return x
        return norms.normalize(x, self.norm, train=train, epsilon=self.epsilon)

    def _pool_at(self, place: str, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        pool = self.pool
        if pool is None or pool.place != place or pool.is_strided_convolution:
            return x, None
        return pool(x, name="pool", train=train)


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value


def _suits(padding: Any, card: PoolingMethod) -> bool:
    # Amounts suit every method that is bound to no rule.
    return padding in card.paddings or (not isinstance(padding, str) and len(card.paddings) > 1)


def _stride_one_padding(padding: pads.Padding, x: jax.Array, window: pads.Pair) -> pads.Padding:
    # SAME alone depends on the stride; the other rules name the same border for every stride.
    if padding != "SAME":
        return padding
    return pads.amounts(pads.spatial_size(x), window, (1, 1), "SAME")

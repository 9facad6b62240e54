"""Convolution as a Linen module, in place of `flax.linen.Conv` in 2-D, NHWC -> NHWD.

    y = Conv(features=64, kernel_size=(3, 3), padding="CIRCULAR")(x)

The fields below are those of flax.linen, with the same parameters, initial values and results;
every padding rule of `ops.padding` besides, and gradients that stay fast on CPU inside loops (see
`ops.conv`). Flax's input_dilation, mask, precision, promote_dtype and conv_general_dilated are not
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.ops import padding as pads
from cnnjax.ops.conv import conv
from cnnjax.ops.padding import Padding, Pair

Initializer = Callable[..., jax.Array]


class Conv(nn.Module):
    """2-D convolution; `kernel_size`, `strides` and `kernel_dilation` are an int or two.

    Parameters: "kernel" (kh, kw, C / feature_group_count, features) and, with `use_bias`, "bias"
    (features,). `dtype` is that of the computation, promoted from input and parameters where None.
    """

    features: int
    kernel_size: int | Pair
    strides: int | Pair | None = 1
    padding: Padding | int = "SAME"
    kernel_dilation: int | Pair | None = 1
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve x (..., H, W, C); raises what `ops.conv.conv` raises."""
        x = pads.feature_map(x)
        kernel_size = pads.pair(self.kernel_size, "kernel_size")
        strides = pads.pair(1 if self.strides is None else self.strides, "strides")
        dilation = 1 if self.kernel_dilation is None else self.kernel_dilation
        kernel = self.weights(x.shape[-1], kernel_size)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv(
            x,
            kernel,
            stride=strides,
            padding=both_sides(self.padding),
            dilation=pads.pair(dilation, "kernel_dilation"),
            groups=self.feature_group_count,
        )
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))

    def weights(self, channels: int, kernel_size: Pair) -> jax.Array:
        """Make the parameter; return the kernel (kh, kw, channels / groups, features)."""
        shape = (*kernel_size, self._channels_per_group(channels), self.features)
        return self.param("kernel", self.kernel_init, shape, self.param_dtype)

    def _channels_per_group(self, channels: int) -> int:
        counts = {"features": self.features, "feature_group_count": self.feature_group_count}
        for name, count in counts.items():
            if isinstance(count, bool) or not hasattr(count, "__index__"):
                raise TypeError(f"{name}: expected an int >= 1, got {count!r}")
            if count < 1:
                raise ValueError(f"{name}: expected an int >= 1, got {count}")
        if channels % self.feature_group_count or self.features % self.feature_group_count:
            raise ValueError(
                f"feature_group_count: expected a divisor of {channels} input channels and of "
                f"{self.features} features, got {self.feature_group_count}"
            )
        return channels // self.feature_group_count


def both_sides(padding: Any) -> Padding:
    """Return flax.linen's short forms, 1 or (1, 2), as ((lo, hi), (lo, hi))."""
    if isinstance(padding, int) and not isinstance(padding, bool):
        padding = (padding, padding)
    if isinstance(padding, (tuple, list)):
        return tuple((side, side) if isinstance(side, int) else side for side in padding)
    return padding

"""Fixed local pooling: one number from every window, x (..., H, W, C) -> (..., H', W', C).

    y = local.maximum(x, window=(3, 3), stride=(2, 2), padding="CIRCULAR")

Every function takes window and stride as pairs and a rule of `ops.padding`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops import padding as pads
from cnnjax.ops import windows
from cnnjax.ops.extreme import extreme
from cnnjax.ops.padding import Padding, Pair
from cnnjax.ops.weighted import weighted


def maximum(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding = "VALID") -> jax.Array:
    """Largest value of each window (Riesenhuber and Poggio 1999; Scherer et al. 2010)."""
    x = pads.pad(x, window=window, stride=stride, padding=padding, fill=-jnp.inf)
    return extreme(x, window=window, stride=stride, largest=True)


def minimum(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding = "VALID") -> jax.Array:
    """Smallest value of each window; minimum(x) = -maximum(-x)."""
    x = pads.pad(x, window=window, stride=stride, padding=padding, fill=jnp.inf)
    return extreme(x, window=window, stride=stride, largest=False)


def total(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding = "VALID") -> jax.Array:
    """Sum of each window."""
    x = pads.pad(x, window=window, stride=stride, padding=padding)
    rows, columns = ((1.0,) * size for size in window)
    return weighted(x, rows=rows, columns=columns, stride=stride)


def mean(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """Mean of each window (LeCun et al. 1990); `count_include_pad=False` divides by real pixels."""
    y = total(windows.wide(x), window=window, stride=stride, padding=padding)
    if count_include_pad:
        return (y / (window[0] * window[1])).astype(x.dtype)
    ones = jnp.ones((1,) * (x.ndim - 3) + (*x.shape[-3:-1], 1), y.dtype)
    return (y / total(ones, window=window, stride=stride, padding=padding)).astype(x.dtype)


def decimate(x: jax.Array, *, stride: Pair) -> jax.Array:
    """Keep every stride-th row and column, starting at 0: striding without any filter."""
    return x[..., :: stride[0], :: stride[1], :]

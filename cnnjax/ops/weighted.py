"""Sliding weighted sums of separable windows, x (..., H, W, C) -> (..., H', W', C).

    y = weighted(x, rows=(0.25, 0.5, 0.25), columns=(0.25, 0.5, 0.25), stride=(2, 2))

Weights are fixed numbers. Small windows are one sum of shifted maps (on CPU 20 times and more
faster than a depthwise convolution), large ones a sum along each axis in turn, of which the first
is stored.
"""

from __future__ import annotations

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops import padding as pads
from cnnjax.ops import windows
from cnnjax.ops.coverage import UNROLLED, covered, most_over
from cnnjax.ops.fusion import apart, unfused
from cnnjax.ops.multilinear import Function, multilinear
from cnnjax.ops.padding import Pair

AT_ONCE = 9  # outputs over a pixel up to which the backward pass is one sum, not one an axis

Weights = tuple[float, ...]


def weighted(x: jax.Array, *, rows: Weights, columns: Weights, stride: Pair) -> jax.Array:
    """Return sum over i, j of rows[i] * columns[j] * x[sh * r + i, sw * c + j, :], VALID."""
    rows, columns = tuple(map(float, rows)), tuple(map(float, columns))
    if x.dtype != windows.wide(x).dtype:  # sums of many bf16 numbers in bf16 lose constants
        y = weighted(windows.wide(x), rows=rows, columns=columns, stride=stride)
        return y.astype(x.dtype)
    if len(rows) * len(columns) > UNROLLED and min(len(rows), len(columns)) > 1:
        x = _weighted(x, rows=(1.0,), columns=columns, stride=(1, stride[1]))
        return _weighted(unfused(x), rows=rows, columns=(1.0,), stride=(stride[0], 1))
    return _weighted(x, rows=rows, columns=columns, stride=stride)


def _forward(x: jax.Array, *, rows: Weights, columns: Weights, stride: Pair) -> jax.Array:
    window = len(rows), len(columns)
    if window[0] * window[1] > UNROLLED and set(rows + columns) == {1.0}:
        return _window_sum(x, window, stride)
    taps = pads.taps(x, window=window, stride=stride)
    weights = [a * b for a in rows for b in columns]
    return functools.reduce(operator.add, map(_times, taps, weights))


def _transpose(
    g: jax.Array, *, rows: Weights, columns: Weights, stride: Pair, size: Pair
) -> jax.Array:
    window, outputs = (len(rows), len(columns)), pads.spatial_size(g)
    if window == stride:
        return _side_by_side(g, np.outer(rows, columns), size)
    terms = list(map(most_over, outputs, window, stride))
    if math.prod(terms) <= AT_ONCE or min(terms) == 1:
        return _gathered(g, np.outer(rows, columns), stride, size)
    g = _gathered(g, np.asarray([columns]), (1, stride[1]), (outputs[0], size[1]))
    return _gathered(apart(g), np.asarray([rows]).T, (stride[0], 1), size)


def _gathered(g: jax.Array, weights: np.ndarray, stride: Pair, size: Pair) -> jax.Array:
    def term(tap: np.ndarray, g: jax.Array) -> jax.Array:
        some = weights.ravel()[tap[tap >= 0]]
        if (some == some[:1]).all():
            return _times(g, some[0] if some.size else 1.0)
        return g * jnp.asarray(weights.ravel()[tap], g.dtype)

    return covered(term, (g,), window=weights.shape, stride=stride, size=size)


def _side_by_side(g: jax.Array, weights: np.ndarray, size: Pair) -> jax.Array:
    """Return `_transpose` of windows that do not overlap and leave no gap.

    Gathered, which XLA for CPU does not fuse where it is all there is, this takes twice the time.
    """
    *lead, height, width, channels = g.shape
    kh, kw = weights.shape
    factors = jnp.asarray(weights.reshape(*(1,) * len(lead), 1, kh, 1, kw, 1), g.dtype)
    dx = factors * g[..., :, None, :, None, :]
    dx = dx.reshape(*lead, height * kh, width * kw, channels)
    ends = [(0, size[0] - height * kh), (0, size[1] - width * kw), (0, 0)]
    return jnp.pad(dx, [(0, 0)] * len(lead) + ends)


def _times(x: jax.Array, weight: float) -> jax.Array:
    return x if weight == 1.0 else x * jnp.asarray(weight, x.dtype)


def _window_sum(x: jax.Array, window: Pair, stride: Pair) -> jax.Array:
    ones = (1,) * (x.ndim - 3)
    zero = np.zeros((), x.dtype)
    dimensions, strides = (*ones, *window, 1), (*ones, *stride, 1)
    return jax.lax.reduce_window(x, zero, jax.lax.add, dimensions, strides, "VALID")


_weighted: Function = multilinear(
    "weighted",
    _forward,
    {
        0: lambda g, x, *, rows, columns, stride: covering(
            g, rows=rows, columns=columns, stride=stride, size=pads.spatial_size(x)
        )
    },
)
covering: Function = multilinear(
    "covering",
    _transpose,
    {
        0: lambda x, g, *, rows, columns, stride, size: _weighted(
            x, rows=rows, columns=columns, stride=stride
        )
    },
)

"""Sliding weighted sums of separable windows, x (..., H, W, C) -> (..., H', W', C).

    y = weighted(x, rows=(0.25, 0.5, 0.25), columns=(0.25, 0.5, 0.25), stride=(2, 2))

Weights are fixed numbers. Small windows are one sum of shifted maps (on CPU 20 times and more
faster than a depthwise convolution), large ones a sum along each axis in turn.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops import padding as pads
from cnnjax.ops import windows
from cnnjax.ops.coverage import UNROLLED, covered
from cnnjax.ops.multilinear import Function, multilinear
from cnnjax.ops.padding import Pair

Weights = tuple[float, ...]


def weighted(x: jax.Array, *, rows: Weights, columns: Weights, stride: Pair) -> jax.Array:
    """Return sum over i, j of rows[i] * columns[j] * x[sh * r + i, sw * c + j, :], VALID."""
    rows, columns = tuple(map(float, rows)), tuple(map(float, columns))
    if x.dtype != windows.wide(x).dtype:  # sums of many bf16 numbers in bf16 lose constants
        y = weighted(windows.wide(x), rows=rows, columns=columns, stride=stride)
        return y.astype(x.dtype)
    if len(rows) * len(columns) > UNROLLED and min(len(rows), len(columns)) > 1:
        x = _weighted(x, rows=(1.0,), columns=columns, stride=(1, stride[1]))
        return _weighted(x, rows=rows, columns=(1.0,), stride=(stride[0], 1))
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
    def term(row: Any, column: Any, g: jax.Array) -> jax.Array:
        weights = np.asarray(rows)[row] * np.asarray(columns)[column]
        return g if np.all(weights == 1.0) else g * jnp.asarray(weights, g.dtype)

    window = len(rows), len(columns)
    return covered(term, (g,), window=window, stride=stride, size=size)


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

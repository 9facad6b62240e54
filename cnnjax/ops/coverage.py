"""Which windows cover a pixel: maps of outputs (..., H', W', C) -> maps of inputs (..., H, W, C).

    dx = covered(term, [g], window=(3, 3), stride=(2, 2), size=(33, 33))

A backward pass that scatters is slow on CPU. Here every input pixel gathers instead: the pixels of
one phase (row mod sh, column mod sw) are covered by the same taps, so each phase is one vectorised
sum, over outputs in row-major order (the order in which XLA's select-and-scatter adds), and the
phases are interleaved at the end. Windows of many taps take all phases at once.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops import padding as pads
from cnnjax.ops.padding import Pair

UNROLLED = 36  # taps up to which every phase gets an expression of its own

Term = Callable[..., jax.Array]


def covered(
    term: Term, maps: Sequence[jax.Array], *, window: Pair, stride: Pair, size: Pair
) -> jax.Array:
    """Sum term(row tap, column tap, *maps at the output) over the outputs that cover a pixel.

    `maps` are (..., H', W', C); outside of them they count as 0, for integers as -1. The taps are
    ints or, for windows of many taps, integer arrays that broadcast against the maps, -1 for taps
    outside the window.
    """
    outputs = pads.spatial_size(maps[0])
    # One output needs no sliding: a step of its own window covers each pixel once.
    stride = _each(lambda k, s, n: max(k, s) if n == 1 else s, window, stride, outputs)
    reach = _each(lambda k, s: -(-k // s), window, stride)
    blocks = _each(lambda n, s: -(-n // s), size, stride)
    padded = [_framed(item, reach, blocks) for item in maps]
    views = _views(padded, reach, blocks)
    spread = _by_phase if window[0] * window[1] <= UNROLLED else _all_phases
    dx = spread(term, views, window, stride)
    return dx[..., : size[0], : size[1], :]


def terms(window: Pair, stride: Pair) -> int:
    """Return how many outputs cover a pixel, at most."""
    rows, columns = _each(lambda k, s: -(-k // s), window, stride)
    return rows * columns


def _framed(item: jax.Array, reach: Pair, blocks: Pair) -> jax.Array:
    outside = -1 if jnp.issubdtype(item.dtype, jnp.integer) else 0
    sides = _each(lambda r, b, n: (r - 1, b - n), reach, blocks, pads.spatial_size(item))
    widths = [(0, 0)] * (item.ndim - 3) + [*sides, (0, 0)]
    return jnp.pad(item, widths, constant_values=outside)


def _views(
    padded: Sequence[jax.Array], reach: Pair, blocks: Pair
) -> list[tuple[Pair, list[jax.Array]]]:
    """Return ((a, b), maps seen a rows up and b columns left) in row-major order of outputs."""
    offsets = [(a, b) for a in reversed(range(reach[0])) for b in reversed(range(reach[1]))]
    return [
        (
            (a, b),
            [pads.tap(m, (reach[0] - 1 - a, reach[1] - 1 - b), blocks, (1, 1)) for m in padded],
        )
        for a, b in offsets
    ]


def _by_phase(term: Term, views: Any, window: Pair, stride: Pair) -> jax.Array:
    (kh, kw), (sh, sw) = window, stride

    def phase(row: int, column: int) -> jax.Array:
        taps = [((row + sh * a, column + sw * b), maps) for (a, b), maps in views]
        parts = [term(i, j, *maps) for (i, j), maps in taps if i < kh and j < kw]
        return functools.reduce(operator.add, parts) if parts else jnp.zeros_like(views[0][1][0])

    rows = [jnp.stack([phase(i, j) for j in range(sw)], axis=-2) for i in range(sh)]
    return _interleaved(jnp.stack(rows, axis=-4))


def _all_phases(term: Term, views: Any, window: Pair, stride: Pair) -> jax.Array:
    def tap(step: int, offset: int, size: int, axis: int) -> np.ndarray:
        index = np.arange(step) + step * offset
        return np.where(index < size, index, -1).reshape(np.where(np.arange(5) == axis, step, 1))

    parts = []
    for (a, b), maps in views:
        rows, columns = tap(stride[0], a, window[0], 1), tap(stride[1], b, window[1], 3)
        lead = maps[0].ndim - 3
        rows, columns = (item.reshape((1,) * lead + item.shape) for item in (rows, columns))
        parts.append(term(rows, columns, *(m[..., :, None, :, None, :] for m in maps)))
    return _interleaved(functools.reduce(operator.add, parts))


def _interleaved(x: jax.Array) -> jax.Array:
    *lead, rows, sh, columns, sw, channels = x.shape
    return x.reshape(*lead, rows * sh, columns * sw, channels)


def _each(function: Callable[..., Any], *pairs: Any) -> Any:
    return tuple(function(*items) for items in zip(*pairs, strict=True))

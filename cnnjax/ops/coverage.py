"""Which windows cover a pixel: maps of outputs (..., H', W', C) -> maps of inputs (..., H, W, C).

    dx = covered(term, [g], window=(3, 3), stride=(2, 2), size=(33, 33))

A backward pass that scatters is slow where few outputs cover a pixel. Here every input pixel
gathers instead, over outputs in row-major order (the order in which XLA's select-and-scatter adds),
in one loop over the map: which output, which tap are constants of a row and of a column.
Nothing is padded: in the place of an output that is not there another is read and not counted.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops import padding as pads
from cnnjax.ops.padding import Pair

UNROLLED = 36  # taps, or outputs over a pixel, up to which each gets an expression of its own

Term = Callable[..., jax.Array]
Join = Callable[[jax.Array, jax.Array], jax.Array]


def covered(
    term: Term,
    maps: Sequence[jax.Array],
    *,
    window: Pair,
    stride: Pair,
    size: Pair,
    own: Sequence[jax.Array] = (),
    join: Join = operator.add,
    absent: float | None = 0,
) -> jax.Array:
    """Sum term(tap, *maps at the output, *own) over the outputs covering a pixel.

    `join` may put another operation in place of the sum, `absent` being what changes nothing there.
    `maps` are (..., H', W', C), read at the output; `own` are (..., H, W, C), read at the pixel.
    tap: an int array (..., H, W, 1), the pixel's place in the output's window, row-major; -1 where
    no such output covers the pixel. What a term says there counts as `absent`; None: the term
    itself says there what changes nothing.
    """
    outputs = pads.spatial_size(maps[0])
    rows, columns = (over(*axis) for axis in zip(size, outputs, window, stride, strict=True))
    parts, lead = [], (1,) * (maps[0].ndim - 3)
    for (row, i), (column, j) in itertools.product(rows, columns):
        i, j = i.reshape(*lead, -1, 1, 1), j.reshape(*lead, 1, -1, 1)
        tap = np.where((i < 0) | (j < 0), -1, i * window[1] + j)
        part = term(tap, *(_taken(item, row, column) for item in maps), *own)
        if absent is not None and (tap < 0).any():
            part = jnp.where(tap >= 0, part, jnp.asarray(absent, part.dtype))
        parts.append(part)
    return functools.reduce(join, parts)


def over(size: int, outputs: int, window: int, stride: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return outputs over each pixel of an axis, and its tap in each, -1 where there is none."""
    pixel, found = np.arange(size), []
    last = np.minimum(pixel // stride, outputs - 1)
    for back in reversed(range(most_over(outputs, window, stride))):
        place = last - back
        tap = pixel - place * stride
        there = (place >= 0) & (tap < window)
        found.append((np.maximum(place, 0), np.where(there, tap, -1)))
    return found


def most_over(outputs: int, window: int, stride: int) -> int:
    """Return how many outputs cover a pixel of an axis, at most."""
    return min(outputs, -(-window // stride))


def _taken(item: jax.Array, row: np.ndarray, column: np.ndarray) -> jax.Array:
    return pads.lines(pads.lines(item, row, item.ndim - 3), column, item.ndim - 2)

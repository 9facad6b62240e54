"""Borders copied from the map itself: x (..., H, W, C) -> (..., H + lo + hi, W + lo + hi, C).

    y = bordered(x, sides=((1, 1), (0, 2)), mode="wrap")

The values are those of `jnp.pad`. What is chosen here is how they come about: the inside in one
piece, then the borders in place, backward as well as forward. JAX joins pieces and derives a
backward pass that adds up padded maps, which XLA on CPU computes again for every tap that reads it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops.fusion import unfused
from cnnjax.ops.multilinear import Function, multilinear

Sides = tuple[tuple[int, int], tuple[int, int]]

AXES = (-3, -2)
# Rows that a border can copy without going round twice: this many fewer than there are.
SPARED = {"wrap": 0, "reflect": 1, "edge": 0}


def bordered(x: jax.Array, *, sides: Sides, mode: str) -> jax.Array:
    """Return x with `sides` (before, after) of rows and columns; mode: wrap, reflect or edge."""
    size = x.shape[-3:-1]
    if any(max(side) > n - SPARED[mode] for side, n in zip(sides, size, strict=True)):
        return _going_round(x, sides=sides, mode=mode)
    return _bordered(x, sides=sides, mode=mode)


def _going_round(x: jax.Array, *, sides: Sides, mode: str) -> jax.Array:
    for axis, side in zip(AXES, sides, strict=True):
        # A single row has no neighbour to reflect; repeating it is the limit of reflection.
        rule: Any = "edge" if x.shape[axis] == 1 else mode
        lines = np.pad(np.arange(x.shape[axis]), side, mode=rule)
        # Lines that follow each other in one piece, none of them empty as jnp.pad's may be, which
        # readers of the program and the ONNX converter stumble over.
        runs = np.split(lines, np.flatnonzero(np.diff(lines) != 1) + 1)
        pieces = [lax.slice_in_dim(x, run[0], run[-1] + 1, axis=axis) for run in runs]
        x = jnp.concatenate(pieces, axis)
    return x


def _grown(x: jax.Array, *, sides: Sides, mode: str) -> jax.Array:
    (row, column), (*lead, height, width, channels) = _axes(x), x.shape
    top, left = sides[0][0], sides[1][0]
    # Put into zeros, x is copied row by row; XLA for CPU pads number by number.
    y = jnp.zeros((*lead, height + sum(sides[0]), width + sum(sides[1]), channels), x.dtype)
    y = lax.dynamic_update_slice(y, x, (*[0] * row, top, left, 0))
    # All of it is taken from x: XLA copies y whenever some of it is read to be written elsewhere.
    lines = zip(_copies(x, sides[0], mode, row), (0, top + height), strict=True)
    for line, place in lines:
        before, after = _copies(line, sides[1], mode, column)
        line = jnp.concatenate([before, line, after], column)
        y = lax.dynamic_update_slice_in_dim(y, line, place, row)
    for line, place in zip(_copies(x, sides[1], mode, column), (0, left + width), strict=True):
        y = lax.dynamic_update_slice(y, line, (*[0] * row, top, place, 0))
    return y


def _folded(g: jax.Array, *, sides: Sides, mode: str) -> jax.Array:
    """Add each border to the lines it was copied from: the transpose of `_grown`."""
    row, column = _axes(g)
    # Fused into what follows, the terms of g would each be written out.
    above, inside, below = (
        _added(*_cut(lines, sides[1], column), mode=mode, axis=column)
        for lines in _cut(unfused(g), sides[0], row)
    )
    return _added(above, inside, below, mode=mode, axis=row)


def _axes(x: jax.Array) -> tuple[int, int]:
    return x.ndim - 3, x.ndim - 2


def _copies(
    x: jax.Array, side: tuple[int, int], mode: str, axis: int
) -> tuple[jax.Array, jax.Array]:
    """Return the border before and the border after x along an axis, as copies of its lines."""

    def lines(start: int, count: int) -> jax.Array:
        copied = lax.slice_in_dim(x, start, start + (1 if mode == "edge" else count), axis=axis)
        copied = jnp.flip(copied, axis) if mode == "reflect" else copied
        return jnp.broadcast_to(copied, (*x.shape[:axis], count, *x.shape[axis + 1 :]))

    first, last = _sources(x.shape[axis], side, mode)
    return lines(first, side[0]), lines(last, side[1])


def _cut(x: jax.Array, side: tuple[int, int], axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    before, inside, after = jnp.split(x, [side[0], x.shape[axis] - side[1]], axis)
    return before, inside, after


def _added(
    before: jax.Array, inside: jax.Array, after: jax.Array, *, mode: str, axis: int
) -> jax.Array:
    """Return the inside plus, in the lines they are copies of, the border before and after it."""
    side = before.shape[axis], after.shape[axis]
    sources = _sources(inside.shape[axis], side, mode)
    for border, source in zip((before, after), sources, strict=True):
        if border.shape[axis]:
            border = jnp.flip(border, axis) if mode == "reflect" else border
            border = jnp.sum(border, axis, keepdims=True) if mode == "edge" else border
            end = source + border.shape[axis]
            total = lax.slice_in_dim(inside, source, end, axis=axis) + border
            inside = lax.dynamic_update_slice_in_dim(inside, total, source, axis)
    return inside


def _sources(size: int, side: tuple[int, int], mode: str) -> tuple[int, int]:
    """Return the first of the lines that the border before, and the border after, are copies of."""
    before, after = side
    first = {"wrap": size - before, "reflect": 1, "edge": 0}[mode]
    last = {"wrap": 0, "reflect": size - 1 - after, "edge": size - 1}[mode]
    return first, last


_bordered: Function = multilinear(
    "bordered",
    _grown,
    {0: lambda g, x, *, sides, mode: _folding(g, sides=sides, mode=mode)},
    plain=_going_round,
)
_folding: Function = multilinear(
    "folded", _folded, {0: lambda x, g, *, sides, mode: _bordered(x, sides=sides, mode=mode)}
)

"""Borders copied from the map itself: x (..., H, W, C) -> (..., H + lo + hi, W + lo + hi, C).

    y = bordered(x, sides=((1, 1), (0, 2)), mode="wrap")

The values are those of `jnp.pad`. What is chosen here is how they come about: the inside in one
piece, then the borders in place, backward as well as forward. JAX joins pieces and derives a
backward pass that adds up padded maps, which XLA on CPU computes again for every tap that reads it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

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
        widths = [(0, 0)] * x.ndim
        widths[axis] = side
        # A single row has no neighbour to reflect; repeating it is the limit of reflection.
        x = jnp.pad(x, widths, mode="edge" if x.shape[axis] == 1 else mode)
    return x


def _grown(x: jax.Array, *, sides: Sides, mode: str) -> jax.Array:
    for axis, side in zip(AXES, sides, strict=True):
        size, axis = x.shape[axis], x.ndim + axis
        widths = [(0, 0)] * x.ndim
        widths[axis] = side
        y = jnp.pad(x, widths)
        for border, source, count in _copies(size, side, mode):
            rows = lax.slice_in_dim(x, source, source + (1 if mode == "edge" else count), axis=axis)
            rows = jnp.flip(rows, axis) if mode == "reflect" else rows
            rows = jnp.broadcast_to(rows, (*y.shape[:axis], count, *y.shape[axis + 1 :]))
            y = lax.dynamic_update_slice_in_dim(y, rows, border, axis)
        x = y
    return x


def _folded(g: jax.Array, *, sides: Sides, mode: str) -> jax.Array:
    """Add each border to the rows it was copied from: the transpose of `_grown`."""
    for axis, side in zip(AXES, sides, strict=True):
        size, axis = g.shape[axis] - sum(side), g.ndim + axis
        inside = lax.slice_in_dim(g, side[0], side[0] + size, axis=axis)
        for border, source, count in _copies(size, side, mode):
            rows = lax.slice_in_dim(g, border, border + count, axis=axis)
            rows = jnp.flip(rows, axis) if mode == "reflect" else rows
            rows = jnp.sum(rows, axis, keepdims=True) if mode == "edge" else rows
            there = lax.slice_in_dim(inside, source, source + rows.shape[axis], axis=axis)
            inside = lax.dynamic_update_slice_in_dim(inside, there + rows, source, axis)
        g = inside
    return g


def _copies(size: int, side: tuple[int, int], mode: str) -> list[tuple[int, int, int]]:
    """Return (first row of the border, first row it copies, rows) of both borders of an axis."""
    before, after = side
    first = {"wrap": size - before, "reflect": 1, "edge": 0}[mode]
    last = {"wrap": 0, "reflect": size - 1 - after, "edge": size - 1}[mode]
    both = (0, first, before), (before + size, last, after)
    return [copy for copy in both if copy[2]]


_bordered: Function = multilinear(
    "bordered",
    _grown,
    {0: lambda g, x, *, sides, mode: _folding(g, sides=sides, mode=mode)},
    plain=_going_round,
)
_folding: Function = multilinear(
    "folded", _folded, {0: lambda x, g, *, sides, mode: _bordered(x, sides=sides, mode=mode)}
)

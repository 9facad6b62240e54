"""Sliding maximum and minimum with a fast backward pass, x (..., H, W, C) -> (..., H', W', C).

    y = extreme(x, window=(3, 3), stride=(2, 2), largest=True)

The forward pass for gradients notes the tap that won (one byte for windows of up to 127 taps), and
the backward pass gathers by it. Values and gradients are those of XLA for CPU to the bit (of more
than `UNROLLED` windows over a pixel a GPU sums in another order), but for two things: up to
`UNROLLED` taps the first of zeros of both signs is the value, and gradients of half precision are
added in float32. The first of equal taps in row-major order takes the gradient, and x itself need
not be kept. In a window with a NaN the value is NaN, and up to `UNROLLED` taps the gradient goes
where XLA sends it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops import padding as pads
from cnnjax.ops import windows
from cnnjax.ops.coverage import UNROLLED, covered, most_over
from cnnjax.ops.fusion import together
from cnnjax.ops.multilinear import Function, multilinear
from cnnjax.ops.padding import Pair

# Windows over a pixel of one axis up to which a GPU gathers axis by axis: it scatters faster, but
# by atomic additions, whose order and rounding differ from run to run.
GATHERED = 64

Stack = tuple[jax.Array, ...]


@functools.partial(jax.jit, static_argnames=("window", "stride", "largest"), inline=True)
def extreme(x: jax.Array, *, window: Pair, stride: Pair, largest: bool) -> jax.Array:
    """Return the largest (or smallest) value of each VALID window of x (..., H, W, C)."""
    return _extreme(window, stride, largest, x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _extreme(window: Pair, stride: Pair, largest: bool, x: jax.Array) -> jax.Array:
    if window[0] * window[1] <= UNROLLED:
        best = windows.largest if largest else windows.smallest
        return best(_widened_taps(x, window, stride)).astype(x.dtype)
    better = jnp.maximum if largest else jnp.minimum

    def combine(left: Stack, right: Stack) -> Stack:
        return (better(left[0], right[0]),)

    (x,) = _slide(combine, (x,), -2, window[1], stride[1])
    (x,) = _slide(combine, (x,), -3, window[0], stride[0])
    return x


def _widened_taps(x: jax.Array, window: Pair, stride: Pair) -> list[jax.Array]:
    """Return the taps, of half precision as float32: XLA for CPU compares nothing narrower."""
    wide = windows.wide if jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray
    return [wide(tap) for tap in pads.taps(x, window=window, stride=stride)]


@_extreme.defjvp
def _tangent(
    window: Pair, stride: Pair, largest: bool, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    y, index = _noted(window, stride, largest, *primals)
    return y, _picked(*tangents, index, window=window, stride=stride)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _noted(window: Pair, stride: Pair, largest: bool, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the best value of each window and the number of the tap that has it, row-major."""
    form = _noted_by_tap if window[0] * window[1] <= UNROLLED else _noted_by_axis
    return form(window, stride, largest, x)


@_noted.defjvp
def _noted_tangent(
    window: Pair, stride: Pair, largest: bool, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    y, index = _noted(window, stride, largest, *primals)
    dy = _picked(*tangents, index, window=window, stride=stride)
    return (y, index), (dy, np.zeros(index.shape, jax.dtypes.float0))


def _noted_by_tap(
    window: Pair, stride: Pair, largest: bool, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Let the best so far meet one tap after another; it stays where it wins."""
    wins = lax.ge if largest else lax.le
    taps = _widened_taps(x, window, stride)
    best, index = taps[0], lax.full(taps[0].shape, 0, jnp.int8)
    for number, tap in enumerate(taps[1:], 1):
        stays = wins(best, tap)
        best = lax.select(stays, best, tap)
        index = lax.select(stays, index, lax.full_like(index, number))
    y = windows.unless_nan(best, taps).astype(x.dtype)
    y, index = together(y, index)
    return y, index


def _noted_by_axis(
    window: Pair, stride: Pair, largest: bool, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Find the winning column of every row, then the winning row; ties keep the first of each."""
    wins = jnp.greater_equal if largest else jnp.less_equal
    dtype = _index_dtype(max(window[0] * window[1], *pads.spatial_size(x)))

    def combine(left: Stack, right: Stack) -> Stack:
        keep = wins(left[0], right[0])
        return tuple(jnp.where(keep, a, b) for a, b in zip(left, right, strict=True))

    def place(x: jax.Array, axis: int) -> jax.Array:
        return lax.broadcasted_iota(dtype, x.shape, x.ndim + axis)

    def tap(position: jax.Array, axis: int, step: int) -> jax.Array:
        return position - place(position, axis) * jnp.asarray(step, dtype)

    best, column = _slide(combine, (x, place(x, -2)), -2, window[1], stride[1])
    column = tap(column, -2, stride[1])
    _, column, row = _slide(combine, (best, column, place(best, -3)), -3, window[0], stride[0])
    index = tap(row, -3, stride[0]) * jnp.asarray(window[1], dtype) + column
    y = _extreme(window, stride, largest, x)
    return y, index.astype(_index_dtype(window[0] * window[1]))


def _slide(
    combine: Callable[[Stack, Stack], Stack], stack: Stack, axis: int, window: int, stride: int
) -> Stack:
    """Combine `window` neighbours along an axis by doubling: log2(window) steps, not window."""

    def pair(stack: Stack, shift: int, count: int) -> Stack:
        left = tuple(lax.slice_in_dim(a, 0, count, axis=axis) for a in stack)
        right = tuple(lax.slice_in_dim(a, shift, shift + count, axis=axis) for a in stack)
        return combine(left, right)

    size, span = stack[0].shape[axis], 1
    while 2 * span <= window:
        stack = pair(stack, span, size - 2 * span + 1)
        span *= 2
    if span < window:
        stack = pair(stack, window - span, size - window + 1)
    return tuple(lax.slice_in_dim(a, 0, None, stride, axis) for a in stack)


def _index_dtype(largest: int) -> Any:
    return next(d for d in (jnp.int8, jnp.int16, jnp.int32) if largest <= jnp.iinfo(d).max)


def _pick(x: jax.Array, index: jax.Array, *, window: Pair, stride: Pair) -> jax.Array:
    """Return the tap `index` of each window of x."""
    if window[0] * window[1] > UNROLLED:
        (height, width), channels = pads.spatial_size(x), x.shape[-1]
        place = _places(index, (height, width), window, stride)
        flat = x.reshape(*x.shape[:-3], height * width, channels)
        rows = place.reshape(*index.shape[:-3], index.shape[-3] * index.shape[-2], channels)
        return jnp.take_along_axis(flat, rows, axis=-2).reshape(index.shape)
    first, *rest = pads.taps(x, window=window, stride=stride)
    for number, tap in enumerate(rest, 1):
        first = lax.select(lax.eq(index, lax.full_like(index, number)), tap, first)
    return first


def _spread(g: jax.Array, index: jax.Array, *, window: Pair, stride: Pair, size: Pair) -> jax.Array:
    """Return the transpose of `_pick`: each pixel sums the g of the windows that it won."""
    terms = list(map(most_over, pads.spatial_size(g), window, stride))
    form = _gathered_by_axis if max(terms) <= GATHERED else _scattered
    form = _gathered if math.prod(terms) <= UNROLLED else form
    return form(g, index, window=window, stride=stride, size=size)


def _spread_on_cpu(
    g: jax.Array, index: jax.Array, *, window: Pair, stride: Pair, size: Pair
) -> jax.Array:
    terms = map(most_over, pads.spatial_size(g), window, stride)
    form = _gathered if math.prod(terms) <= UNROLLED else _scattered
    return form(g, index, window=window, stride=stride, size=size)


def _gathered(
    g: jax.Array, index: jax.Array, *, window: Pair, stride: Pair, size: Pair
) -> jax.Array:
    """Ask the winner of each window over a pixel, in row-major order, whether it is this pixel."""

    def term(tap: np.ndarray, g: jax.Array, index: jax.Array) -> jax.Array:
        g = windows.wide(g)
        won = lax.eq(index, jnp.broadcast_to(tap.astype(index.dtype), index.shape))
        return lax.select(won, g, lax.full_like(g, 0))

    # No window has a tap -1, so nothing else needs to be masked.
    dx = covered(term, (g, index), window=window, stride=stride, size=size, absent=None)
    return dx.astype(g.dtype)


def _gathered_by_axis(
    g: jax.Array, index: jax.Array, *, window: Pair, stride: Pair, size: Pair
) -> jax.Array:
    """Move g to the winning row, then to the winning column: kh + kw terms, not kh * kw.

    All windows of one column that a row wins have the same winner in it.
    """
    row, column = (part.astype(index.dtype) for part in jnp.divmod(index, window[1]))

    def winner(tap: np.ndarray, row: jax.Array, column: jax.Array) -> jax.Array:
        return jnp.where(row == tap.astype(row.dtype), column, jnp.asarray(-1, column.dtype))

    tall, down = (window[0], 1), (stride[0], 1)
    between = (size[0], pads.spatial_size(g)[1])
    rows = _gathered(g, row, window=tall, stride=down, size=between)
    columns = covered(
        winner,
        (row, column),
        window=tall,
        stride=down,
        size=between,
        join=jnp.maximum,
        absent=None,
    )
    return _gathered(rows, columns, window=(1, window[1]), stride=(1, stride[1]), size=size)


def _scattered(
    g: jax.Array, index: jax.Array, *, window: Pair, stride: Pair, size: Pair
) -> jax.Array:
    lead, channels = g.shape[:-3], g.shape[-1]
    place = _places(index, size, window, stride)
    place = place.reshape(math.prod(lead), *index.shape[-3:])
    image = jnp.arange(place.shape[0]).reshape(-1, 1, 1, 1)
    channel = jnp.arange(channels).reshape(1, 1, 1, -1)
    wide = windows.wide(g).reshape(place.shape)
    zeros = jnp.zeros((place.shape[0], size[0] * size[1], channels), wide.dtype)
    dx = zeros.at[image, place, channel].add(wide)
    return dx.reshape(*lead, *size, channels).astype(g.dtype)


def _places(index: jax.Array, size: Pair, window: Pair, stride: Pair) -> jax.Array:
    """Return the row-major position, in a map of `size`, of the tap `index` of each window."""
    index = index.astype(jnp.int32)
    row = lax.broadcasted_iota(jnp.int32, index.shape, index.ndim - 3) * stride[0]
    column = lax.broadcasted_iota(jnp.int32, index.shape, index.ndim - 2) * stride[1]
    return (row + index // window[1]) * size[1] + column + index % window[1]


_picked: Function = multilinear(
    "pick",
    _pick,
    {
        0: lambda g, x, index, *, window, stride: _spreaded(
            g, index, window=window, stride=stride, size=pads.spatial_size(x)
        )
    },
)
_spreaded: Function = multilinear(
    "spread",
    _spread,
    {
        0: lambda x, g, index, *, window, stride, size: _picked(
            x, index, window=window, stride=stride
        )
    },
    cpu=_spread_on_cpu,
)

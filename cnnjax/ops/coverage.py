"""Which windows cover a pixel: maps of outputs (..., H', W', C) -> maps of inputs (..., H, W, C).

    dx = covered(term, [g], window=(3, 3), stride=(2, 2), size=(33, 33))

A backward pass that scatters is slow on CPU. Here every input pixel gathers instead, over outputs
in row-major order (the order in which XLA's select-and-scatter adds). Either all pixels take a term
from every output that may reach them, and what does not reach them counts as absent; or the pixels
of one phase (row mod sh, column mod sw), which the same taps cover, are one vectorised sum, and the
phases are interleaved at the end. Interleaving costs a CPU more than terms that are cheap, and any
platform the more the more phases there are.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops import padding as pads
from cnnjax.ops.padding import Pair

UNROLLED = 36  # taps up to which every phase may get an expression of its own
PHASES = 4  # up to which a phase at a time may be faster: of dear terms, and on a GPU of cheap ones
UNCOPIED, UNCOPIED_AT_1 = 4, 9  # terms up to which XLA pads faster as it reads than by a copy

Term = Callable[..., jax.Array]
Mover = Callable[[int, int], jax.Array]
Join = Callable[[jax.Array, jax.Array], jax.Array]


class Sum(NamedTuple):
    """What `covered` sums: maps as each output sees them, and the pixel's own in blocks."""

    term: Term
    views: list[tuple[Pair, list[jax.Array]]]
    own: list[jax.Array]
    window: Pair
    stride: Pair
    join: Join
    absent: float


def covered(
    term: Term,
    maps: Sequence[jax.Array],
    *,
    window: Pair,
    stride: Pair,
    size: Pair,
    own: Sequence[jax.Array] = (),
    outside: Sequence[float] | None = None,
    join: Join = operator.add,
    absent: float = 0,
) -> jax.Array:
    """Sum term(row tap, column tap, *maps at the output, *own) over the outputs covering a pixel.

    `join` may put another operation in place of the sum, `absent` being what changes nothing there.
    `maps` are (..., H', W', C); outside of them they count as `outside`, one number each (default:
    0, for integers -1). `own` are (..., H, W, C), read at the pixel itself; terms that read them
    count as dear. The taps are ints or integer arrays that broadcast against the maps.
    """
    if outside is None:
        outside = [-1 if jnp.issubdtype(m.dtype, jnp.integer) else 0 for m in maps]
    outputs = pads.spatial_size(maps[0])
    # One output needs no sliding: a step of its own window covers each pixel once.
    stride = _each(lambda k, s, n: max(k, s) if n == 1 else s, window, stride, outputs)
    reach = _each(lambda k, s: -(-k // s), window, stride)
    blocks = _each(lambda n, s: -(-n // s), size, stride)
    few = UNCOPIED_AT_1 if stride == (1, 1) else UNCOPIED
    in_place = reach[0] * reach[1] <= few and not own
    movers = [_mover(m, o, reach, blocks, in_place) for m, o in zip(maps, outside, strict=True)]
    views, own = _views(movers, reach), [_blocked(a, blocks, stride) for a in own]
    dx = _summed(Sum(term, views, own, window, stride, join, absent))
    return dx[..., : size[0], : size[1], :]


def _summed(total: Sum) -> jax.Array:
    """Take the faster form: of cheap terms a GPU, unlike a CPU, interleaves few phases faster."""
    window, stride = total.window, total.stride
    phases, taps = stride[0] * stride[1], window[0] * window[1]
    at_once, by_phase = (functools.partial(form, total) for form in (_all_phases, _by_phase))
    if window == stride or taps > UNROLLED or phases > PHASES:
        return at_once()
    if total.own or phases == 1:
        return by_phase()
    return lax.platform_dependent(cpu=at_once, default=by_phase)


def terms(window: Pair, stride: Pair) -> int:
    """Return how many outputs cover a pixel, at most."""
    rows, columns = _each(lambda k, s: -(-k // s), window, stride)
    return rows * columns


def _views(movers: Sequence[Mover], reach: Pair) -> list[tuple[Pair, list[jax.Array]]]:
    """Return ((a, b), maps moved a rows down and b columns right) in row-major order of outputs."""
    offsets = [(a, b) for a in reversed(range(reach[0])) for b in reversed(range(reach[1]))]
    return [((a, b), [move(a, b) for move in movers]) for a, b in offsets]


def _mover(item: jax.Array, fill: float, reach: Pair, blocks: Pair, in_place: bool) -> Mover:
    size, integer = pads.spatial_size(item), jnp.issubdtype(item.dtype, jnp.integer)
    outside = jnp.asarray(fill, item.dtype)
    unpadded = [(0, 0, 0)] * (item.ndim - 3)

    def grown(before: Pair, after: Any) -> jax.Array:
        sides = [(lo, hi, 0) for lo, hi in zip(before, after, strict=True)]
        return lax.pad(item, outside, [*unpadded, *sides, (0, 0, 0)])

    if in_place and not integer:
        return lambda a, b: grown((a, b), (blocks[0] - size[0] - a, blocks[1] - size[1] - b))
    frame = _each(lambda r: r - 1, reach)
    framed = grown(frame, _each(lambda n, m: n - m, blocks, size))
    return lambda a, b: pads.tap(framed, (frame[0] - a, frame[1] - b), blocks, (1, 1))


def _blocked(x: jax.Array, blocks: Pair, stride: Pair) -> jax.Array:
    """Return x as (..., blocks, sh, blocks, sw, C), filled with zeros at the ends."""
    ends = [(0, n * s - size) for n, s, size in zip(blocks, stride, x.shape[-3:-1], strict=True)]
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*ends, (0, 0)])
    return x.reshape(*x.shape[:-3], blocks[0], stride[0], blocks[1], stride[1], x.shape[-1])


def _by_phase(total: Sum) -> jax.Array:
    term, views, own, (kh, kw), (sh, sw), join, absent = total

    def phase(row: int, column: int) -> jax.Array:
        taps = [((row + sh * a, column + sw * b), maps) for (a, b), maps in views]
        here = [a[..., :, row, :, column, :] for a in own]
        parts = [term(i, j, *maps, *here) for (i, j), maps in taps if i < kh and j < kw]
        return functools.reduce(join, parts or [jnp.full_like(views[0][1][0], absent)])

    rows = [jnp.stack([phase(i, j) for j in range(sw)], axis=-2) for i in range(sh)]
    return _interleaved(jnp.stack(rows, axis=-4))


def _all_phases(total: Sum) -> jax.Array:
    term, views, own, window, stride, join, absent = total

    def taps(step: int, offset: int, lead: int, axis: int) -> np.ndarray:
        return _along(np.arange(step) + step * offset, lead, axis)

    parts = []
    for (a, b), maps in views:
        dimensions = maps[0].ndim - 3
        row, column = taps(stride[0], a, dimensions, 1), taps(stride[1], b, dimensions, 3)
        within = (row < window[0]) & (column < window[1])
        row, column = np.minimum(row, window[0] - 1), np.minimum(column, window[1] - 1)
        part = term(row, column, *(m[..., :, None, :, None, :] for m in maps), *own)
        if not within.all():
            part = jnp.where(within, part, jnp.asarray(absent, part.dtype))
        parts.append(part)
    dx = functools.reduce(join, parts)
    *lead, rows, _, columns, _, channels = dx.shape
    return _interleaved(
        jnp.broadcast_to(dx, (*lead, rows, stride[0], columns, stride[1], channels))
    )


def _along(values: np.ndarray, lead: int, axis: int) -> np.ndarray:
    """Lay values along one axis of blocks (..., rows, sh, columns, sw, C)."""
    return values.reshape((1,) * (lead + axis) + (-1,) + (1,) * (4 - axis))


def _interleaved(x: jax.Array) -> jax.Array:
    *lead, rows, sh, columns, sw, channels = x.shape
    return x.reshape(*lead, rows * sh, columns * sw, channels)


def _each(function: Callable[..., Any], *pairs: Any) -> Any:
    return tuple(function(*items) for items in zip(*pairs, strict=True))

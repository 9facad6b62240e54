"""Pooling by chance, with a key: x (..., H, W, C) -> (..., H', W', C).

    y = chance.stochastic(key, x, window=(2, 2), stride=(2, 2))    # and .expected_... to evaluate
    y = chance.fractional_max(bounds_of_rows, bounds_of_columns, x)

Each published method has two rules, one for training (a key) and one for evaluation (none).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops import local, order, windows
from cnnjax.ops import padding as pads
from cnnjax.ops.padding import Padding, Pair


def stochastic(
    key: jax.Array, x: jax.Array, *, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    """Draw one value of each window with probability x / sum x (Zeiler and Fergus 2013).

    Negative values count as 0, as after a rectifier; a window without positive values gives 0, one
    whose sum is not finite that sum.
    """
    values = jax.nn.relu(windows.values(x, window=window, stride=stride, padding=padding))
    levels = jnp.cumsum(jax.lax.stop_gradient(values), axis=0)
    draw = jax.random.uniform(key, levels.shape[1:], levels.dtype) * levels[-1]
    # The first level above the draw: a value of 0 adds nothing to the level and is never drawn.
    above = levels > draw[None]
    first = above & ~jnp.concatenate([jnp.zeros_like(above[:1]), above[:-1]])
    drawn = jnp.sum(jnp.where(first, values, 0), axis=0)
    return jnp.where(jnp.isfinite(levels[-1]), drawn, levels[-1]).astype(x.dtype)


def expected_stochastic(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding) -> jax.Array:
    """The mean of `stochastic`: sum x^2 / sum x, the rule of evaluation."""
    values = jax.nn.relu(windows.values(x, window=window, stride=stride, padding=padding))
    total = jnp.sum(values, axis=0)
    safe = jnp.where(total > 0, total, 1)
    mean = jnp.sum(values * (values / safe[None]), axis=0)
    mean = jnp.where(total == 0, 0, mean)
    return jnp.where(jnp.isfinite(total), mean, total).astype(x.dtype)


def max_dropout(
    key: jax.Array, x: jax.Array, *, rate: float, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    """Set each value of each window to 0 with probability `rate`, then take the maximum."""
    values = windows.values(x, window=window, stride=stride, padding=padding)
    kept = jax.random.bernoulli(key, 1 - rate, values.shape)
    return jnp.max(jnp.where(kept, values, 0), axis=0).astype(x.dtype)


def expected_max_dropout(
    x: jax.Array, *, rate: float, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    """The mean of `max_dropout` on x >= 0 (Wu and Gu 2015): values weighted by their rank."""
    ranked = order.ranks(x, window=window, stride=stride, padding=padding)
    above = jnp.arange(len(ranked) - 1, -1, -1)
    weights = (1 - rate) * jnp.asarray(rate, ranked.dtype) ** above
    weights = windows.along(weights, ranked)
    # A weight of 0, at rate 0, drops its value even where that is infinite.
    return jnp.sum(jnp.where(weights > 0, weights * ranked, 0), axis=0).astype(x.dtype)


def s3(
    key: jax.Array, x: jax.Array, *, window: Pair, stride: Pair, padding: Padding, grid: Pair
) -> jax.Array:
    """Dense maximum, then of each grid cell a random 1/s of the rows and columns, in order.

    Rows and columns are the same for the whole batch and all channels (S3Pool, Zhai et al. 2017).
    ValueError where the stride does not divide the grid or the grid the map.
    """
    x = local.maximum(x, window=window, stride=(1, 1), padding=padding)
    size = pads.spatial_size(x)
    if size[0] % grid[0] or size[1] % grid[1]:
        raise ValueError(f"grid: expected a divisor of the map of maxima {size}, got {grid}")
    keys = jax.random.split(key)
    for axis in (0, 1):
        chosen = _rows_of_cells(keys[axis], x.shape[axis - 3], grid[axis], stride[axis])
        x = jnp.take(x, chosen, axis=axis - 3)
    return x


def expected_s3(
    x: jax.Array, *, window: Pair, stride: Pair, padding: Padding, dense: bool = False
) -> jax.Array:
    """Dense maximum, then the mean of blocks of the stride's size: the rule of evaluation.

    ValueError where the stride does not divide the map of maxima.
    """
    x = local.maximum(x, window=window, stride=(1, 1), padding=padding)
    pads.divided_size(x, stride)
    if dense:
        after = [(0, 0)] * (x.ndim - 3) + [(0, s - 1) for s in stride] + [(0, 0)]
        return local.mean(jnp.pad(x, after, mode="wrap"), window=stride, stride=(1, 1))
    return local.mean(x, window=stride, stride=stride)


def fractional_bounds(key: jax.Array | None, size: int, outputs: int, random: bool) -> jax.Array:
    """Return outputs + 1 rising region bounds, 0 to size, steps of floor and ceil(size / outputs).

    `random`: the steps in random order; else ceil(a (i + u)), a = size / outputs, with one random u
    (Graham 2014). Without a key u = 1/2 and no random order, for a repeatable evaluation.
    """
    if random and key is not None:
        step, longer = divmod(size, outputs)
        steps = step + (jnp.arange(outputs) < longer).astype(jnp.int32)
        steps = jax.random.permutation(key, steps)
        return jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(steps, dtype=jnp.int32)])
    # In integers, u = start / size: the sequence changes at no other u, and none is rounded.
    start = size // 2 if key is None else jax.random.randint(key, (), 0, size)
    levels = -(-(size * jnp.arange(outputs + 1) + start) // outputs)
    return levels - levels[0]


def fractional_max(
    rows: jax.Array, columns: jax.Array, x: jax.Array, *, overlap: bool
) -> jax.Array:
    """Maximum of the regions between bounds (n + 1,); with `overlap` they share their borders."""
    for axis, bounds in ((-3, rows), (-2, columns)):
        x = _max_between(bounds, x, axis, overlap)
    return x


def _max_between(bounds: jax.Array, x: jax.Array, axis: int, overlap: bool) -> jax.Array:
    size, outputs = x.shape[axis], len(bounds) - 1
    reach = min(-(-size // outputs) + overlap, size)
    places = bounds[:-1, None] + jnp.arange(reach)[None, :]
    inside = places < jnp.minimum(bounds[1:, None] + overlap, size)
    regions = jnp.take(x, jnp.minimum(places, size - 1), axis=axis)
    lead, rest = (1,) * (x.ndim + axis), (1,) * (-axis - 1)
    inside = inside.reshape(*lead, outputs, reach, *rest)
    return jnp.max(jnp.where(inside, regions, -jnp.inf), axis=axis)


def _rows_of_cells(key: jax.Array, size: int, cell: int, stride: int) -> jax.Array:
    if cell % stride:
        raise ValueError(f"grid: expected a multiple of the stride {stride}, got {cell}")
    cells = size // cell
    shuffled = jax.random.uniform(key, (cells, cell)).argsort(axis=1)
    chosen = jnp.sort(shuffled[:, : cell // stride], axis=1)
    return (chosen + cell * jnp.arange(cells)[:, None]).reshape(-1)

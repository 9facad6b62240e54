"""All values of every window, x (..., H, W, C) -> (K, ..., H', W', C) with K = kh * kw.

    values = windows.values(x, window=(3, 3), stride=(2, 2), padding="CIRCULAR")
    y = jnp.mean(values, axis=0)

For the methods that need a window's values together (sorting, weighting, sampling); max, min, sum
and mean have forms of their own in `ops.local`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import padding as pads
from cnnjax.ops.padding import Padding, Pair

Values = Sequence[jax.Array] | jax.Array  # the K values of every window: K maps, or (K, ...)

# Up to here one slice a tap; beyond, the program would grow with the window, so gather instead.
MOST_SLICES = 64


def values(
    x: jax.Array, *, window: Pair, stride: Pair, padding: Padding, fill: float = 0.0
) -> jax.Array:
    """Return (K, ..., H', W', C), taps row by row, in float32 or wider; `fill` as in `pads.pad`."""
    x = pads.pad(wide(x), window=window, stride=stride, padding=padding, fill=fill)
    return stacked(x, window=window, stride=stride)


def stacked(x: jax.Array, *, window: Pair, stride: Pair) -> jax.Array:
    """Return (K, ..., H', W', C), the taps of a padded map row by row."""
    if window[0] * window[1] <= MOST_SLICES:
        return jnp.stack(pads.taps(x, window=window, stride=stride))
    rows, columns = (
        jnp.arange(0, n - w + 1, s)[:, None] + jnp.arange(w)[None, :]
        for n, w, s in zip(pads.spatial_size(x), window, stride, strict=True)
    )
    x = x[..., rows, :, :]
    x = x[..., columns, :]
    x = jnp.moveaxis(x, (-4, -2), (0, 1))
    return x.reshape(-1, *x.shape[2:])


def each(function: Callable[..., jax.Array], *values: Values) -> Values:
    """Apply an elementwise function to the K values of every window."""
    if isinstance(values[0], jax.Array):
        return jax.vmap(function)(*values)
    return [function(*items) for items in zip(*values, strict=True)]


def total(values: Values) -> jax.Array:
    """Return the sum of every window's values."""
    # A list is added up one by one, which XLA fuses into one loop over the map; a stack is not.
    if isinstance(values, jax.Array):
        return jnp.sum(values, axis=0)
    return functools.reduce(operator.add, values)


def largest(values: Values) -> jax.Array:
    """Return the largest of every window's values, NaN where one is; of equal ones the first."""
    return _best(values, jnp.max, lax.gt)


def smallest(values: Values) -> jax.Array:
    """Return the smallest of every window's values, NaN where one is; of equal ones the first."""
    return _best(values, jnp.min, lax.lt)


def _best(
    values: Values, reduction: Callable[..., jax.Array], wins: Callable[..., jax.Array]
) -> jax.Array:
    if isinstance(values, jax.Array):
        return reduction(values, axis=0)

    def better(one: jax.Array, other: jax.Array) -> jax.Array:
        return lax.select(wins(other, one), other, one)

    # In rows: one chain of 25 values waits for each of them in turn, at 1.8 times the time.
    length = math.isqrt(len(values))
    rows = [values[start : start + length] for start in range(0, len(values), length)]
    best = functools.reduce(better, (functools.reduce(better, row) for row in rows))
    return unless_nan(best, values)


def unless_nan(result: jax.Array, values: Sequence[jax.Array]) -> jax.Array:
    """Return the result, but NaN where one of the values is.

    Asked once a value: XLA for CPU asks in every maximum, and for the sign of zeros as well, which
    takes twice the time.
    """
    if not jnp.issubdtype(result.dtype, jnp.floating):
        return result
    some = functools.reduce(lax.bitwise_or, (lax.ne(value, value) for value in values))
    return lax.select(some, lax.full_like(result, jnp.nan), result)


def wide(x: jax.Array) -> jax.Array:
    """Return x in float32 or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def along(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Reshape weights (K,) or (K, C) so that they multiply values (K, ..., H', W', C)."""
    channels = weights.shape[1:] or (1,)
    return weights.reshape(weights.shape[0], *(1,) * (values.ndim - 2), *channels)

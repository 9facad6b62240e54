"""Where XLA must not fuse, and where it must.

    y = blur(unfused(maximum(x)))
    largest, where = together(maximum(x), winner(x))

XLA for CPU computes a map anew inside every loop that reads it, each time it is read: a maximum of
9 taps under a blur of 9 becomes 81 taps a pixel. It drops `lax.optimization_barrier` before it
fuses, but it does not fuse across a branch. XLA for GPU chooses well by itself, and a branch costs
more there than it saves (an H100: 100 against 61 us for max_blur at stride 2).

Of two maps of the same x XLA for CPU makes two loops, and each reads x; but a reduction of several
arrays is one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.multilinear import Function, multilinear


def apart(x: jax.Array) -> jax.Array:
    """Return x, computed once; of maps without a gradient, as indices (else: `unfused`)."""
    return lax.platform_dependent(x, cpu=_behind_branch, default=lambda x: x)


def together(*maps: jax.Array) -> tuple[jax.Array, ...]:
    """Return maps of one shape, computed in one loop on CPU; they take no gradient.

    Each is the maximum of itself and what is below all numbers. NaN stays NaN.
    """
    return lax.platform_dependent(*maps, cpu=_in_one_loop, default=lambda *maps: maps)


def _in_one_loop(*maps: jax.Array) -> tuple[jax.Array, ...]:
    if len(maps) == 1:
        return maps
    # Not a `where` over two copies: in long loops XLA would compute the second as well.
    least = [jnp.asarray(_least(m.dtype), m.dtype) for m in maps]
    sides = [(0, 1, 0)] + [(0, 0, 0)] * maps[0].ndim
    pairs = [lax.pad(m[None], low, sides) for m, low in zip(maps, least, strict=True)]
    return tuple(lax.reduce(tuple(pairs), tuple(least), _larger, (0,)))


def _larger(left: Sequence[jax.Array], right: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(lax.max(a, b) for a, b in zip(left, right, strict=True))


def _least(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _behind_branch(x: jax.Array) -> jax.Array:
    first = lax.slice(x, (0,) * x.ndim, [min(1, size) for size in x.shape])
    both = lax.eq(first, lax.full_like(first, 0)) & lax.eq(first, lax.full_like(first, 1))
    return lax.cond(jnp.any(both), lax.neg, lambda x: x, x)


unfused: Function = multilinear(
    "unfused", lambda x: x, {0: lambda g, x: unfused(g)}, cpu=_behind_branch
)

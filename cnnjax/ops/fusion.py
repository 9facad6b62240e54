"""Where XLA must not fuse.

    y = blur(unfused(maximum(x)))

XLA for CPU computes a map anew inside every loop that reads it, each time it is read: a maximum of
9 taps under a blur of 9 becomes 81 taps a pixel. It drops `lax.optimization_barrier` before it
fuses, but it does not fuse across a branch. XLA for GPU chooses well by itself, and a branch costs
more there than it saves (an H100: 100 against 61 us for max_blur at stride 2).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops.multilinear import Function, multilinear


def apart(x: jax.Array) -> jax.Array:
    """Return x, computed once; of maps without a gradient, as indices (else: `unfused`)."""
    return lax.platform_dependent(x, cpu=_behind_branch, default=lambda x: x)


def _behind_branch(x: jax.Array) -> jax.Array:
    first = x[(slice(0, 1),) * x.ndim]
    never = jnp.any((first == 0) & (first == 1))
    return lax.cond(never, jnp.negative, lambda x: x, x)


unfused: Function = multilinear("unfused", apart, {0: lambda g, x: unfused(g)}, plain=lambda x: x)

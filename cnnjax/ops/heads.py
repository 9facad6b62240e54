"""Heads: a feature map becomes a vector, x (..., H, W, C) -> (..., F).

v = heads.gap(x)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def gap(x: jax.Array) -> jax.Array:
    """Global average pooling (Lin et al. 2014)."""
    return jnp.mean(x, axis=(-3, -2))


def gmp(x: jax.Array) -> jax.Array:
    """Global max pooling."""
    return jnp.max(x, axis=(-3, -2))


def flatten(x: jax.Array) -> jax.Array:
    """All values row by row: keeps the place, so nothing after it is blind to shifts."""
    return x.reshape(*x.shape[:-3], -1)

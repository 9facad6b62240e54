"""Heads: a feature map becomes a vector, x (..., H, W, C) -> (..., F).

v = heads.gap(x)
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import means, windows
from cnnjax.ops.allowed import Number
from cnnjax.ops.means import Positive


def gap(x: jax.Array) -> jax.Array:
    """Global average pooling (Lin et al. 2014)."""
    return jnp.mean(x, axis=(-3, -2))


def gmp(x: jax.Array) -> jax.Array:
    """Global max pooling."""
    return jnp.max(x, axis=(-3, -2))


def gap_gmp(x: jax.Array) -> jax.Array:
    """Mean and maximum side by side: 2 C values."""
    return jnp.concatenate([gap(x), gmp(x)], axis=-1)


def gem(x: jax.Array, *, p: Positive = 3.0, eps: Positive = 1e-6) -> jax.Array:
    """(mean of max(x, eps)^p)^(1/p) over all places (Radenovic et al. 2018)."""
    values = jnp.maximum(places(x), eps)
    return means.PowerMean(p, len(values)).statistics(values)[0].astype(x.dtype)


def lse(x: jax.Array, *, r: Positive = 10.0) -> jax.Array:
    """log(mean of exp(r x)) / r over all places (Pinheiro and Collobert 2015)."""
    values = places(x)
    return means.LogMeanExp(r, len(values)).statistics(values)[0].astype(x.dtype)


def topk_mean(x: jax.Array, *, k: Annotated[int, Number(least=1, whole=True)] = 4) -> jax.Array:
    """Mean of the k largest values of each channel; of all where the map has fewer than k."""
    values = jnp.moveaxis(places(x), 0, -1)
    return jnp.mean(lax.top_k(values, min(k, values.shape[-1]))[0], axis=-1).astype(x.dtype)


def flatten(x: jax.Array) -> jax.Array:
    """All values row by row: keeps the place, so nothing after it is blind to shifts."""
    return x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2] * x.shape[-1])


def places(x: jax.Array) -> jax.Array:
    """Return the values of all places, (H W, ..., C), in float32 or wider."""
    flat = windows.wide(x).reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1])
    return jnp.moveaxis(flat, -2, 0)

"""Order statistics of each window, x (..., H, W, C) -> (..., H', W', C).

y = order.median(x, window=(3, 3), stride=(2, 2), padding="REFLECT")
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops import windows
from cnnjax.ops.padding import Padding, Pair


def median(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding = "VALID") -> jax.Array:
    """Median of each window; of an even number of values the mean of the middle two."""
    ranked = ranks(x, window=window, stride=stride, padding=padding)
    count = len(ranked)
    middle = (ranked[(count - 1) // 2] + ranked[count // 2]) / 2
    return jnp.where(jnp.isnan(ranked[-1]), ranked[-1], middle).astype(x.dtype)


def ranks(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding) -> jax.Array:
    """Return each window's values in rising order, (K, ..., H', W', C), NaN last."""
    values = windows.values(x, window=window, stride=stride, padding=padding)
    return jnp.sort(values, axis=0)

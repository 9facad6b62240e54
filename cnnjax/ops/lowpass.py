"""Low-pass filters other than the binomial, x (..., H, W, C) -> (..., H', W', C).

y = lowpass.gaussian_blur(x, stride=(2, 2), filter_size=5, sigma=1.0, padding="REFLECT")
y = lowpass.filtered(x, weights, window=(3, 3), stride=(2, 2), padding="CIRCULAR")
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from cnnjax.ops import padding as pads
from cnnjax.ops import windows
from cnnjax.ops.allowed import Number
from cnnjax.ops.padding import Padding, Pair


def gaussian_blur(
    x: jax.Array,
    *,
    stride: Pair,
    padding: Padding = "VALID",
    filter_size: Annotated[int, Number(least=1, most=31, whole=True)] = 5,
    sigma: Annotated[float, Number(above=0)] = 1.0,
) -> jax.Array:
    """Sampled Gaussian of `sigma` pixels, its sum set to 1, then every stride-th sample."""
    taps = gaussian(filter_size, sigma)
    weights = jnp.asarray([tap / sum(taps) for tap in taps], windows.wide(x).dtype)
    y = pads.pad(windows.wide(x), window=(filter_size,) * 2, stride=stride, padding=padding)
    y = filtered(y, weights, window=(filter_size, 1), stride=(stride[0], 1), padding="VALID")
    y = filtered(y, weights, window=(1, filter_size), stride=(1, stride[1]), padding="VALID")
    return y.astype(x.dtype)


def filtered(
    x: jax.Array, weights: jax.Array, *, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    """Weigh each window's K values by weights (K,), or (K, C) for each channel its own."""
    values = windows.values(x, window=window, stride=stride, padding=padding)
    return jnp.sum(windows.along(weights, values) * values, axis=0).astype(x.dtype)


def adaptive(
    x: jax.Array, weights: jax.Array, *, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    """Weigh each window by weights (..., H', W', G, K) of its own, a group of channels alike."""
    values = windows.values(x, window=window, stride=stride, padding=padding)
    channels, count = values.shape[-1], weights.shape[-2]
    groups = values.reshape(*values.shape[:-1], count, channels // count)
    mixed = jnp.sum(jnp.moveaxis(weights, -1, 0)[..., None] * groups, axis=0)
    return mixed.reshape(values.shape[1:]).astype(x.dtype)


def gaussian(size: int, sigma: float | jax.Array) -> list[Any]:
    """Return exp(-t^2 / 2 sigma^2) at `size` places t one apart around 0, the largest as 1."""
    exp: Any = jnp.exp if isinstance(sigma, jax.Array) else math.exp
    places = [abs(k - (size - 1) / 2) for k in range(size)]
    least = min(places)
    # A difference of squares as a product: for small sigma it grows to infinity, no further.
    return [
        1.0 if t == least else exp(-((t - least) / sigma) * ((t + least) / sigma) / 2)
        for t in places
    ]

"""Means between the mean and the maximum, x (..., H, W, C) -> (..., H', W', C).

    y = means.lp(x, window=(3, 3), stride=(2, 2), p=3.0, reduce="sum")

All are computed in float32 or wider on a scale that cannot overflow, and keep x's dtype.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import local, windows
from cnnjax.ops.allowed import Number, OneOf
from cnnjax.ops.padding import Padding, Pair

Exponent = Annotated[float, Number(above=0)]
Positive = Annotated[float, Number(above=0)]
Reduce = Annotated[str, OneOf("mean", "sum")]
Combine = Annotated[str, OneOf("mean", "sum", "concat")]


def lp(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    p: Exponent = 2.0,
    reduce: Reduce = "mean",
) -> jax.Array:
    """(mean or sum of |x|^p)^(1/p) (Sermanet et al. 2012, who sum); the gradient at 0 is 0."""
    sizes = jnp.abs(windows.values(x, window=window, stride=stride, padding=padding))
    return power_mean(sizes, p, reduce).astype(x.dtype)


def gem(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    p: Exponent = 3.0,
    eps: Positive = 1e-6,
) -> jax.Array:
    """(mean of max(x, eps)^p)^(1/p): generalised mean (Radenovic et al. 2018) of each window."""
    sizes = windows.values(x, window=window, stride=stride, padding=padding)
    return power_mean(jnp.maximum(sizes, eps), p, "mean").astype(x.dtype)


def lse(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    r: Positive = 10.0,
) -> jax.Array:
    """log(mean of exp(r x)) / r: a smooth maximum (Pinheiro and Collobert 2015)."""
    values = windows.values(x, window=window, stride=stride, padding=padding)
    return log_mean_exp(values, r).astype(x.dtype)


def max_mean(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    combine: Combine = "mean",
) -> jax.Array:
    """Maximum and mean of each window: their mean, sum or concatenation (Mishkin et al. 2017)."""
    peak = local.maximum(x, window=window, stride=stride, padding=padding)
    level = local.mean(x, window=window, stride=stride, padding=padding)
    if combine == "concat":
        return jnp.concatenate([peak, level], axis=-1)
    return peak + level if combine == "sum" else (peak + level) / 2


def softpool(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding = "VALID") -> jax.Array:
    """Mean weighted by exp(x), each channel by itself (Stergiou et al. 2021)."""
    return beta_softmax(x, window=window, stride=stride, padding=padding, beta=1.0)


def beta_softmax(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    beta: Annotated[float, Number()] = 1.0,
) -> jax.Array:
    """Mean weighted by exp(beta x): 0 is the mean, 1 SoftPool, infinity the maximum."""
    values = windows.values(x, window=window, stride=stride, padding=padding)
    return softmax_mean(values, beta * values).astype(x.dtype)


def power_mean(sizes: jax.Array, p: float | jax.Array, reduce: str) -> jax.Array:
    """(mean or sum over axis 0 of sizes^p)^(1/p), sizes (K, ...) >= 0."""
    # The function is homogeneous, so the scale may be taken for a constant when differentiating.
    scale = lax.stop_gradient(jnp.max(sizes, axis=0))
    regular = (scale > 0) & jnp.isfinite(scale)
    safe = jnp.where(regular, scale, 1)
    powers = jnp.where(regular[None], sizes / safe[None], 1) ** p
    total = jnp.mean(powers, axis=0) if reduce == "mean" else jnp.sum(powers, axis=0)
    return jnp.where(regular, safe * total ** (1 / p), scale)


def log_mean_exp(values: jax.Array, r: float | jax.Array) -> jax.Array:
    """log(mean over axis 0 of exp(r values)) / r, values (K, ...)."""
    peak = lax.stop_gradient(jnp.max(values, axis=0))
    regular = jnp.isfinite(peak)
    raised = jnp.where(regular[None], values - jnp.where(regular, peak, 0)[None], 0)
    return jnp.where(regular, peak + jnp.log(jnp.mean(jnp.exp(r * raised), axis=0)) / r, peak)


def softmax_mean(values: jax.Array, logits: jax.Array) -> jax.Array:
    """Mean over axis 0 of values (K, ...) weighted by exp(logits); infinite windows stay so."""
    peak = lax.stop_gradient(jnp.max(logits, axis=0))
    regular = jnp.isfinite(peak)
    raised = jnp.where(regular[None], logits - jnp.where(regular, peak, 0)[None], 0)
    weights = jnp.exp(raised)
    # A weight of 0 drops its value even where that is -inf.
    parts = jnp.where((weights > 0) | jnp.isnan(weights), weights * values, 0)
    return jnp.sum(parts, axis=0) / jnp.sum(weights, axis=0)

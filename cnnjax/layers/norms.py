"""NORMS: normalisation by name inside a compact module, x (..., H, W, C) -> the same shape.

    x = normalize(x, "batch", train=train)
    x = local_response_norm(x, size=5)

"response" has no parameters and stands after the rectifier, as published; the others before it.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

NORMS = ("none", "batch", "layer", "group", "response")
AFTER_ACTIVATION = ("response",)
GROUPS = 32


def has_bias(norm: str) -> bool:
    """True where the normalisation adds a trained offset, so that a bias before it is idle."""
    return norm in ("batch", "layer", "group")


def normalize(x: jax.Array, norm: str, *, train: bool, epsilon: float = 1e-5) -> jax.Array:
    """Normalise x as `norm` says; parameters and running statistics are those of "norm".

    Batch statistics run with momentum 0.9 (PyTorch's 0.1). "group" has 32 groups, or as many of
    them as divide the channels.
    """
    if norm == "none":
        return x
    if norm == "batch":
        return nn.BatchNorm(not train, momentum=0.9, epsilon=epsilon, name="norm")(x)
    if norm == "layer":
        return nn.LayerNorm(epsilon=epsilon, name="norm")(x)
    if norm == "group":
        groups = math.gcd(GROUPS, x.shape[-1])
        return nn.GroupNorm(num_groups=groups, epsilon=epsilon, name="norm")(x)
    return local_response_norm(x)


def local_response_norm(
    x: jax.Array, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """x / (k + alpha sum of x^2 over `size` neighbouring channels)^beta (Krizhevsky 2012, 3.3).

    Channels beyond the first and the last count as 0; alpha multiplies the sum, not the mean.
    """
    channels, before = x.shape[-1], size // 2
    widths = [(0, 0)] * (x.ndim - 1) + [(before, size - 1 - before)]
    squares = jnp.pad(jnp.square(x), widths)
    energy = sum(squares[..., i : i + channels] for i in range(size))
    return x / (k + alpha * energy) ** beta

"""Pooling by name: `pool(x, "max", ...)` for arrays, `Pool("max", ...)` for Flax models.

    y = pool(x, "max", window=3, stride=2, padding="CIRCULAR")
    module = Pool("aps", stride=2)

Both look the method up in POOLS (layers/methods.py) and check every argument against its card.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
from flax.core import FrozenDict

from cnnjax import spec
from cnnjax.layers.methods import POOLS, PoolingMethod
from cnnjax.ops import padding as pads


def pool(
    x: jax.Array,
    method: str,
    /,
    *,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    padding: pads.Padding | None = None,
    **params: Any,
) -> jax.Array:
    """Pool x (..., H, W, C) -> (..., H', W', C) by a parameter-free row of POOLS."""
    card = spec.find(POOLS, method, "pool")
    return card.function(x, **card.arguments(window, stride, padding, params))


def Pool(
    method: str,
    /,
    *,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    padding: pads.Padding | None = None,
    name: str | None = None,
    **params: Any,
) -> nn.Module:
    """Build the Linen module of a row of POOLS; call it as module(x, train=...)."""
    card = spec.find(POOLS, method, "pool")
    arguments = card.arguments(window, stride, padding, params)
    return FixedPool(method, FrozenDict(arguments), name=name)


class FixedPool(nn.Module):
    """A parameter-free method as a module, so that models treat all methods alike."""

    method: str
    arguments: Mapping[str, Any]

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        del train, temperature
        return POOLS[self.method].function(x, **self.arguments)

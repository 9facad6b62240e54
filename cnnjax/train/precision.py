"""PRECISIONS: what the forward and backward pass compute in, while parameters stay float32.

    variables, images = lower("bf16", variables, images)      # "f32" leaves both as they are
    logits = raise_to("bf16", logits)                         # losses are summed in float32

float16 has no room for small gradients: the loss is multiplied by a LossScale, which halves when
a gradient overflows (that step changes nothing) and doubles after GROWTH steps without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

PRECISIONS: Mapping[str, Any] = {"f32": None, "bf16": jnp.bfloat16, "f16": jnp.float16}
FIRST_SCALE, GROWTH = 2.0**10, 2000


class LossScale(struct.PyTreeNode):
    """The factor on the loss, and the steps since it last changed."""

    factor: jax.Array
    steps: jax.Array


def initial_scale(precision: str) -> LossScale | None:
    """Return the scale before the first step; None where the precision needs none."""
    if precision != "f16":
        return None
    return LossScale(jnp.float32(FIRST_SCALE), jnp.int32(0))


def lower(precision: str, *trees: Any) -> tuple[Any, ...]:
    """Return the trees with every real array in the precision's type."""
    dtype = PRECISIONS[precision]
    if dtype is None:
        return trees
    return tuple(jax.tree.map(lambda x: _real_as(x, dtype), tree) for tree in trees)


def raise_to(precision: str, tree: Any) -> Any:
    """Return the tree with its real arrays in float32 where the precision is lower."""
    if PRECISIONS[precision] is None:
        return tree
    return jax.tree.map(lambda x: _real_as(x, jnp.float32), tree)


def scaled(loss: jax.Array, scale: LossScale | None) -> jax.Array:
    """Return the loss to take the gradient of."""
    return loss if scale is None else loss * scale.factor


def unscale(grads: Any, count: jax.Array, scale: LossScale | None) -> Any:
    """Return gradients of the mean loss from those of the scaled sum over `count` rows."""
    divisor = count if scale is None else count * scale.factor
    return jax.tree.map(lambda g: lax.div(g, lax.full_like(g, divisor)), grads)


def guard(old: Any, new: Any, grads: Any, sums: dict[str, jax.Array]) -> Any:
    """Return (state, sums); with a loss scale, a step whose gradient overflowed changes nothing.

    Its sums are left out too, unless the scale has nowhere left to go: then the loss is at fault.
    """
    if old.scale is None:
        return new, sums
    finite = jnp.all(jnp.array([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads)]))
    kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), _changing(new), _changing(old))
    skipped = ~finite & (old.scale.factor > 1.0)
    sums = {k: jnp.where(skipped, 0.0, v) for k, v in sums.items()}
    return new.replace(scale=_next(old.scale, finite), **kept), sums


def _next(scale: LossScale, finite: jax.Array) -> LossScale:
    grown = finite & (scale.steps + 1 >= GROWTH)
    factor = jnp.where(grown, scale.factor * 2.0, scale.factor)
    factor = jnp.where(finite, factor, jnp.maximum(scale.factor / 2.0, 1.0))
    return LossScale(factor, jnp.where(finite & ~grown, scale.steps + 1, 0))


def _changing(state: Any) -> dict[str, Any]:
    names = ("params", "collections", "opt_state", "average")
    return {name: getattr(state, name) for name in names}


def _real_as(x: jax.Array, dtype: Any) -> jax.Array:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

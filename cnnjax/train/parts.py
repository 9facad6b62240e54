"""A part of a batch on its own, drawn and normalised as the whole batch would be.

    part = device_part("data", rows)                  # this device's rows of the global batch
    with nn.intercept_methods(part.intercept):
        logits = net.apply(variables, x, train=True, rngs=keys)

Dropout draws the mask of the whole batch and keeps this part's rows; pools by chance see the rows
of all devices; batch normalisation takes its statistics over all devices. So the network knows
nothing of how a batch is spread, and the numbers do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.layers.pooling import POOLS

Rows = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Part:
    """Which rows of the global batch a computation holds, and the axis where the others are.

    take: (rows, ...) of the global batch -> this part's rows. `norm_scope` "device" leaves batch
    statistics to each device.
    """

    take: Rows
    rows: int
    axis_name: str | None = None
    norm_scope: str = "global"

    def microbatch(self, index: jax.Array, count: int) -> Part:
        """Return every `count`-th row of this part, from `index` on."""
        return replace(self, take=lambda x: every(self.take(x), index, count))

    def whole(self, draw: Callable[[Any], Any], x: Any) -> Any:
        """Apply `draw`, whose randomness depends on a row's place, as to the global batch.

        x: an array or a tree of arrays, each with a row an image.
        """
        if self.axis_name is None:
            return draw(x)
        drawn = draw(lax.all_gather(x, self.axis_name, tiled=True))
        return jax.tree.map(self.take, drawn)

    def intercept(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Run one method of a Linen module; an interceptor for `nn.intercept_methods`."""
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, nn.Dropout):
            return self._dropout(module, *args, **kwargs)
        if isinstance(module, nn.BatchNorm) and self.norm_scope == "global":
            # A bound module is frozen; its copy would be another module with other variables.
            object.__setattr__(module, "axis_name", self.axis_name)
        if kwargs.get("train") and _draws(module):
            return self.whole(lambda x: call(x, *args[1:], **kwargs), args[0])
        return call(*args, **kwargs)

    def _dropout(
        self, module: nn.Dropout, x: jax.Array, deterministic: bool | None = None, rng: Any = None
    ) -> jax.Array:
        if nn.merge_param("deterministic", module.deterministic, deterministic) or not module.rate:
            return x
        key = module.make_rng(module.rng_collection) if rng is None else rng
        shape = [self.rows, *x.shape[1:]]
        for axis in module.broadcast_dims:
            shape[axis] = 1
        kept = jax.random.bernoulli(key, 1.0 - module.rate, shape)
        kept = kept if shape[0] == 1 else self.take(kept)
        return jnp.where(kept, x / (1.0 - module.rate), jnp.zeros((), x.dtype))


def device_part(axis_name: str, rows: int, norm_scope: str = "global") -> Part:
    """Return the part of the device at work, one of those along `axis_name`, of `rows` each."""
    start = lax.axis_index(axis_name) * rows
    return Part(
        lambda x: lax.dynamic_slice_in_dim(x, start, rows),
        rows * lax.axis_size(axis_name),
        axis_name,
        norm_scope,
    )


def every(x: jax.Array, index: jax.Array, count: int) -> jax.Array:
    """Return the rows index, index + count, ...: each device holds its share of them."""
    return lax.dynamic_index_in_dim(x.reshape(-1, count, *x.shape[1:]), index, 1, keepdims=False)


def _draws(module: nn.Module) -> bool:
    method = getattr(module, "method", None)
    return isinstance(method, str) and method in POOLS and POOLS[method].stochastic

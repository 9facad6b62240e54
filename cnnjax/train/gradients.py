"""Gradients of the summed loss over a batch, whole or in microbatches, and what is counted with it.

gradients = gradients_of(net, transform, loss, method)
grads, collections, sums = gradients(state, batch, keys, part)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.nets.classifier import AUXILIARY, AUXILIARY_WEIGHT, auxiliary_logits
from cnnjax.train import precision as precisions
from cnnjax.train.parts import Part, every

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]
Transform = Callable[[jax.Array], jax.Array]
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def gradients_of(net: nn.Module, transform: Transform, loss: Loss, method: Any) -> Any:
    """Return (state, batch, keys, part) -> (gradients of the summed loss, collections, sums).

    method, state: the `Method` and the `TrainState` of train/step.py.
    """
    forward: Any = net.apply

    def gradients(state: Any, batch: Batch, keys: Any, part: Part | None) -> Any:
        def objective(params: Any) -> tuple[jax.Array, tuple[Any, Sums]]:
            variables, images = precisions.lower(
                method.precision, {"params": params}, transform(batch["image"])
            )
            variables = {**variables, **state.collections}
            with nn.intercept_methods(part.intercept if part else _as_it_is):
                logits, collections = forward(
                    variables,
                    images,
                    train=True,
                    rngs=keys,
                    mutable=[*state.collections, AUXILIARY],
                )
            logits, heads = precisions.raise_to(
                method.precision, (logits, auxiliary_logits(collections))
            )
            sums = score(logits, batch, loss)
            # Auxiliary heads pull in training (GoogLeNet); the loss that is reported is the net's.
            aside = sum(score(head, batch, loss)["loss"] for head in heads)
            kept = {
                name: jax.tree.map(lambda new, old: new.astype(old.dtype), collections[name], old)
                for name, old in state.collections.items()
            }
            total = sums["loss"] + AUXILIARY_WEIGHT * aside
            return precisions.scaled(total, state.scale), (kept, sums)

        backward = jax.checkpoint(objective, policy=_keep_products) if method.remat else objective
        grads, (collections, sums) = jax.grad(backward, has_aux=True)(state.params)
        return grads, collections, sums

    return gradients if method.microbatches == 1 else _accumulated(gradients, method.microbatches)


def _accumulated(gradients: Any, count: int) -> Any:
    """Return `gradients` taken over `count` microbatches, one after another in a loop."""

    def one(state: Any, batch: Batch, keys: Any, part: Part, index: Any) -> Any:
        rows = {name: every(value, index, count) for name, value in batch.items()}
        # Dropout's key is shared: each microbatch takes its rows of one mask.
        own = {**keys, "pool": jax.random.fold_in(keys["pool"], index)}
        return gradients(state, rows, own, part.microbatch(index, count))

    def accumulated(state: Any, batch: Batch, keys: Any, part: Part) -> Any:
        def body(carry: Any, index: jax.Array) -> tuple[Any, None]:
            grads, collections, sums = carry
            now = state.replace(collections=collections)
            more, collections, extra = one(now, batch, keys, part, index)
            grads, sums = jax.tree.map(jnp.add, (grads, sums), (more, extra))
            return (grads, collections, sums), None

        shapes = jax.eval_shape(lambda: one(state, batch, keys, part, 0))
        grads, _, sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return lax.scan(body, (grads, state.collections, sums), jnp.arange(count))[0]

    return accumulated


def _as_it_is(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    return call(*args, **kwargs)


def _keep_products(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in ("cnnjax_conv", "conv_general_dilated", "dot_general")


def score(logits: jax.Array, batch: Batch, loss: Loss) -> Sums:
    """Return the sums of loss, hits and images over the rows of weight 1.

    Mixed images have the loss of their targets; a hit is always the image's own label.
    """
    weight, label = batch["weight"], batch["label"]
    hits = (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
    return {
        "loss": jnp.sum(weight * loss(logits, batch.get("target", label))),
        "correct": jnp.sum(weight * hits),
        "count": jnp.sum(weight),
    }


def mean_of_floats(tree: Any, axis_name: str) -> Any:
    """Return collections that hold over all devices of a mapped axis."""
    # Only running averages can differ from device to device; counts are the same everywhere.
    return jax.tree.map(
        lambda x: lax.pmean(x, axis_name) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )

"""One training step and one evaluation step, pure: (state, batch) -> (state, sums).

    state = create_state(net, tx, jax.random.key(0), image_shape)
    step = jax.jit(train_step(net, tx, transform=transform, loss=loss), donate_argnums=0)
    state, sums = step(state, batch)            # sums["loss"] / sums["count"]

A batch is {"image": (B, H, W, C) uint8, "label": (B,) int32, "weight": (B,) float32}; rows of
weight 0 are padding: they enter no sum and no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]
Transform = Callable[[jax.Array], jax.Array]
Augment = Callable[[jax.Array, jax.Array], jax.Array]
Loss = Callable[[jax.Array, jax.Array], jax.Array]


class TrainState(struct.PyTreeNode):
    """Everything that training changes, and the key that all its randomness is folded from."""

    step: jax.Array
    params: Any
    collections: Any
    opt_state: optax.OptState
    key: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that `net.apply` takes."""
        return {"params": self.params, **self.collections}


def create_state(
    net: nn.Module, tx: optax.GradientTransformation, key: jax.Array, image_shape: tuple[int, ...]
) -> TrainState:
    """Return the state before the first step; `key` draws the parameters and all that follows."""
    image = jnp.zeros((1, *image_shape), jnp.float32)
    collections = dict(net.init(jax.random.fold_in(key, 0), image, train=False))
    params = collections.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=collections,
        opt_state=tx.init(params),
        key=jax.random.fold_in(key, 1),
    )


def train_step(
    net: nn.Module,
    tx: optax.GradientTransformation,
    *,
    transform: Transform,
    loss: Loss,
    augment: Augment | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Return the step: augment, forward, loss, gradient, update.

    transform: uint8 images -> what the network sees. augment: (key, uint8 images) -> images.
    loss: (logits (B, K), labels (B,)) -> (B,). sums: loss, correct and count over real rows.
    """

    forward: Any = net.apply

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(state.key, state.step)
        keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(("dropout", "pool"))}
        images = batch["image"]
        if augment is not None:
            images = augment(jax.random.fold_in(key, len(keys)), images)

        def objective(params: Any) -> tuple[jax.Array, tuple[Any, Sums]]:
            variables = {"params": params, **state.collections}
            logits, collections = forward(
                variables, transform(images), train=True, rngs=keys, mutable=[*state.collections]
            )
            sums = score(logits, batch, loss)
            mean = sums["loss"] / jnp.maximum(sums["count"], 1.0)
            return mean, (collections, sums)

        grads, (collections, sums) = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            collections=collections,
            opt_state=opt_state,
        )
        return state, sums

    return step


def score(logits: jax.Array, batch: Batch, loss: Loss) -> Sums:
    """Return the sums of loss, hits and images over the rows of weight 1."""
    weight, label = batch["weight"], batch["label"]
    hits = (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
    return {
        "loss": jnp.sum(weight * loss(logits, label)),
        "correct": jnp.sum(weight * hits),
        "count": jnp.sum(weight),
    }


def eval_step(
    net: nn.Module, *, transform: Transform, loss: Loss
) -> Callable[[Any, Batch], tuple[jax.Array, Sums]]:
    """Return (variables, batch) -> (logits (B, K), sums); nothing is drawn, nothing changes."""

    forward: Any = net.apply

    def step(variables: Any, batch: Batch) -> tuple[jax.Array, Sums]:
        logits = forward(variables, transform(batch["image"]), train=False)
        return logits, score(logits, batch, loss)

    return step

"""One training step and one evaluation step, pure: (state, batch) -> (state, sums).

    state = create_state(net, tx, jax.random.key(0), image_shape)
    step = jax.jit(train_step(net, tx, transform=transform, loss=loss), donate_argnums=0)
    state, sums = step(state, batch)            # sums["loss"] / sums["count"]

A batch is {"image": (B, H, W, C) uint8, "label": (B,) int32, "weight": (B,) float32}; rows of
weight 0 are padding: they enter no sum and no gradient. Gradients are those of the sum of losses,
added up over microbatches and devices, and divided once by the number of real rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from cnnjax.train import precision as precisions
from cnnjax.train.changes import Augment, Mix, changed
from cnnjax.train.gradients import Batch, Loss, Sums, Transform, gradients_of, mean_of_floats, score
from cnnjax.train.parts import Part, device_part

Step = Callable[["TrainState", Batch], tuple["TrainState", Sums]]


class TrainState(struct.PyTreeNode):
    """Everything that training changes, and the key that all its randomness is folded from.

    average: the exponential moving average of the parameters, scale: the loss scale of float16;
    None where there is none.
    """

    step: jax.Array
    params: Any
    collections: Any
    opt_state: optax.OptState
    key: jax.Array
    average: Any = None
    scale: precisions.LossScale | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate with `net.apply`: averaged parameters where there are."""
        params = self.params if self.average is None else self.average
        return {"params": params, **self.collections}


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a step computes what it computes; the defaults are the plain step.

    precision: of the forward and backward pass, a row of PRECISIONS; parameters stay float32.
    microbatches: parts of a batch taken one after another, their gradients added up.
    remat: compute all but convolutions and matrix products again in the backward pass.
    average: decay of the moving average of the parameters, 0 for none.
    axis_name: the axis of devices inside pmap; norm_scope: "global" or "device" statistics there.
    """

    precision: str = "f32"
    microbatches: int = 1
    remat: bool = False
    average: float = 0.0
    axis_name: str | None = None
    norm_scope: str = "global"


def create_state(
    net: nn.Module,
    tx: optax.GradientTransformation,
    key: jax.Array,
    image_shape: tuple[int, ...],
    method: Method = Method(),
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
        average=jax.tree.map(jnp.copy, params) if method.average else None,
        scale=precisions.initial_scale(method.precision),
    )


def train_step(
    net: nn.Module,
    tx: optax.GradientTransformation,
    *,
    transform: Transform,
    loss: Loss,
    augment: Augment | None = None,
    mix: Mix | None = None,
    method: Method = Method(),
) -> Step:
    """Return the step: augment, forward, loss, gradient, update.

    transform: uint8 images -> what the network sees. augment: (key, uint8 images) -> images. mix:
    (key, uint8 images, labels) -> (images, targets (B, K)), each row of targets sums to one.
    loss: (logits (B, K), labels (B,) or targets (B, K)) -> (B,). sums: loss, correct and count over
    real rows, and gradients, the norm of each parameter's gradient in the order of
    `jax.tree.leaves(params)`.
    """
    gradients = gradients_of(net, transform, loss, method)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(state.key, state.step)
        keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(("dropout", "pool"))}
        part = _part(method, len(batch["label"]))
        batch = changed(batch, augment, mix, key, len(keys), part)
        grads, collections, sums = gradients(state, batch, keys, part)
        if method.axis_name is not None:
            grads, sums = lax.psum((grads, sums), method.axis_name)
            collections = mean_of_floats(collections, method.axis_name)
        grads = precisions.unscale(grads, jnp.maximum(sums["count"], 1.0), state.scale)
        sums["gradients"] = jnp.stack([jnp.linalg.norm(g) for g in jax.tree.leaves(grads)])
        return precisions.guard(state, _update(state, grads, collections), grads, sums)

    def _update(state: TrainState, grads: Any, collections: Any) -> TrainState:
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(
            step=state.step + 1,
            params=params,
            collections=collections,
            opt_state=opt_state,
            average=_averaged(state.average, params, method.average),
        )

    return step


def _part(method: Method, rows: int) -> Part | None:
    if method.axis_name is not None:
        return device_part(method.axis_name, rows, method.norm_scope)
    return Part(lambda x: x, rows) if method.microbatches > 1 else None


def _averaged(average: Any, params: Any, decay: float) -> Any:
    if average is None:
        return None
    return jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, average, params)


def eval_step(
    net: nn.Module, *, transform: Transform, loss: Loss
) -> Callable[[Any, Batch], tuple[jax.Array, Sums]]:
    """Return (variables, batch) -> (logits (B, K), sums); nothing is drawn, nothing changes."""

    forward: Any = net.apply

    def step(variables: Any, batch: Batch) -> tuple[jax.Array, Sums]:
        logits = forward(variables, transform(batch["image"]), train=False)
        return logits, score(logits, batch, loss)

    return step

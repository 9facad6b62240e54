"""One training step and one evaluation step, pure: (state, batch) -> (state, sums).

    state = create_state(net, tx, jax.random.key(0), image_shape)
    step = jax.jit(train_step(net, tx, transform=transform, loss=loss), donate_argnums=0)
    state, sums = step(state, batch)            # sums["loss"] / sums["count"]

A batch is {"image": (B, H, W, C) uint8, "label": (B,) int32, "weight": (B,) float32}; rows of
weight 0 are padding: they enter no sum and no gradient. Gradients are those of the sum of losses,
added up over microbatches and devices, and divided once by the number of real rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax

from cnnjax.nets.classifier import AUXILIARY, AUXILIARY_WEIGHT, auxiliary_logits
from cnnjax.train import precision as precisions
from cnnjax.train.parts import Part, device_part, every

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]
Transform = Callable[[jax.Array], jax.Array]
Augment = Callable[[jax.Array, jax.Array], jax.Array]
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
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
    gradients = _gradients(net, transform, loss, method)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(state.key, state.step)
        keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(("dropout", "pool"))}
        part = _part(method, len(batch["label"]))
        batch = _changed(batch, augment, mix, key, len(keys), part)
        grads, collections, sums = gradients(state, batch, keys, part)
        if method.axis_name is not None:
            grads, sums = lax.psum((grads, sums), method.axis_name)
            collections = _mean_of_floats(collections, method.axis_name)
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


def _changed(
    batch: Batch, augment: Augment | None, mix: Mix | None, key: Any, first: int, part: Part | None
) -> Batch:
    """Return the batch augmented and mixed, by the keys numbered `first` and `first` + 1."""
    whole = part.whole if part else lambda draw, x: draw(x)
    if augment is not None:
        change = functools.partial(augment, jax.random.fold_in(key, first))
        batch = {**batch, "image": whole(change, batch["image"])}
    if mix is not None:
        draw = jax.random.fold_in(key, first + 1)
        mixed = whole(lambda pair: mix(draw, *pair), (batch["image"], batch["label"]))
        batch = {**batch, **dict(zip(("image", "target"), mixed, strict=True))}
    return batch


def _part(method: Method, rows: int) -> Part | None:
    if method.axis_name is not None:
        return device_part(method.axis_name, rows, method.norm_scope)
    return Part(lambda x: x, rows) if method.microbatches > 1 else None


def _gradients(net: nn.Module, transform: Transform, loss: Loss, method: Method) -> Any:
    """Return (state, batch, keys, part) -> (gradients of the summed loss, collections, sums)."""
    forward: Any = net.apply

    def gradients(state: TrainState, batch: Batch, keys: Any, part: Part | None) -> Any:
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

    def one(state: TrainState, batch: Batch, keys: Any, part: Part, index: Any) -> Any:
        rows = {name: every(value, index, count) for name, value in batch.items()}
        # Dropout's key is shared: each microbatch takes its rows of one mask.
        own = {**keys, "pool": jax.random.fold_in(keys["pool"], index)}
        return gradients(state, rows, own, part.microbatch(index, count))

    def accumulated(state: TrainState, batch: Batch, keys: Any, part: Part) -> Any:
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


def _mean_of_floats(tree: Any, axis_name: str) -> Any:
    # Only running averages can differ from device to device; counts are the same everywhere.
    return jax.tree.map(
        lambda x: lax.pmean(x, axis_name) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def _averaged(average: Any, params: Any, decay: float) -> Any:
    if average is None:
        return None
    return jax.tree.map(lambda a, p: decay * a + (1.0 - decay) * p, average, params)


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


def eval_step(
    net: nn.Module, *, transform: Transform, loss: Loss
) -> Callable[[Any, Batch], tuple[jax.Array, Sums]]:
    """Return (variables, batch) -> (logits (B, K), sums); nothing is drawn, nothing changes."""

    forward: Any = net.apply

    def step(variables: Any, batch: Batch) -> tuple[jax.Array, Sums]:
        logits = forward(variables, transform(batch["image"]), train=False)
        return logits, score(logits, batch, loss)

    return step

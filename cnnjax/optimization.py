"""Losses, optimisers and learning-rate schedules by name, from plain numbers.

tx = build("sgd", learning_rate=schedule("cosine", 0.1, steps=1000, warmup=0.05), momentum=0.9)
losses = LOSSES["cross_entropy"](logits, labels, smoothing=0.1)      # (N,), one an image

Labels are class numbers (N,) or targets (N, K), rows that sum to one: a target's loss is the mean
of the losses of its classes, each weighted by its share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

Schedule = Callable[[Any], Any]
Loss = Callable[[jax.Array, jax.Array, float], jax.Array]
RUBBISH = 1.0


def _smoothed(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    whole = labels if labels.ndim == logits.ndim else jax.nn.one_hot(labels, logits.shape[-1])
    return optax.smooth_labels(whole, smoothing)


def _of_targets_too(loss: Loss) -> Loss:
    """Return a loss of class numbers as one of targets as well."""

    def mean(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
        if labels.ndim < logits.ndim:
            return loss(logits, labels, smoothing)
        each = jax.vmap(lambda k: loss(logits, jnp.full(len(logits), k), smoothing), out_axes=-1)
        return jnp.sum(labels * each(jnp.arange(logits.shape[-1])), axis=-1)

    return mean


def _cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    targets = _smoothed(logits, labels, smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _sigmoid(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    targets = _smoothed(logits, labels, smoothing)
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def _hinge(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    del smoothing
    return optax.losses.multiclass_hinge_loss(logits, labels)


def _lenet_map(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    # LeCun et al. 1998, eq. 9, with logits = minus the penalties. The constant j keeps penalties
    # that are already large from growing on: a "rubbish" class of penalty j. The paper gives none.
    del smoothing
    rubbish = jnp.full((*logits.shape[:-1], 1), -RUBBISH, logits.dtype)
    whole = jax.nn.logsumexp(jnp.concatenate([logits, rubbish], axis=-1), axis=-1)
    return whole - jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": _cross_entropy,
    "sigmoid": _sigmoid,
    "hinge": _of_targets_too(_hinge),
    "lenet_map": _of_targets_too(_lenet_map),
}
WITH_SMOOTHING = ("cross_entropy", "sigmoid")


def _step_decay(peak: float, steps: int) -> Schedule:
    return optax.piecewise_constant_schedule(peak, {steps // 2: 0.1, steps * 3 // 4: 0.1})


SCHEDULES: Mapping[str, Callable[[float, int], Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, max(steps, 1)),
    "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
    "step": _step_decay,
    "one_cycle": lambda peak, steps: optax.cosine_onecycle_schedule(max(steps, 1), peak),
}
WITH_OWN_WARMUP = ("one_cycle",)


def schedule(name: str, peak: float, *, steps: int, warmup: float = 0.0) -> Schedule:
    """Return the learning rate as a function of the step.

    The first `warmup` share of `steps` rises linearly to `peak`; one_cycle has its own warm-up.
    """
    rise = 0 if name == "one_cycle" else round(warmup * steps)
    after = SCHEDULES[name](peak, steps - rise)
    if rise == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(peak / rise, peak, rise - 1), after], [rise])


def _decay_mask(params: Any) -> Any:
    # Biases and normalisation scales are vectors; only kernels are pulled towards zero.
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _sgd(learning_rate: Schedule, momentum: float, decay: float, nesterov: bool) -> Any:
    return optax.chain(
        optax.add_decayed_weights(decay, mask=_decay_mask),
        optax.sgd(learning_rate, momentum=momentum or None, nesterov=nesterov),
    )


def _matrices(params: Any) -> Any:
    # A kernel is a matrix from all its inputs to its outputs; vectors are left to Adam (None).
    def matrix(leaf: jax.Array) -> Any:
        last = leaf.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(last)), last) if last > 0 else None

    return jax.tree.map(matrix, params)


OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": lambda rate, momentum, decay: _sgd(rate, momentum, decay, False),
    "nesterov": lambda rate, momentum, decay: _sgd(rate, momentum, decay, True),
    "adam": lambda rate, momentum, decay: optax.adamw(rate, weight_decay=decay, mask=_decay_mask),
    "adamw": lambda rate, momentum, decay: optax.adamw(rate, weight_decay=decay, mask=_decay_mask),
    "lion": lambda rate, momentum, decay: optax.lion(rate, weight_decay=decay, mask=_decay_mask),
    "muon": lambda rate, momentum, decay: optax.contrib.muon(
        rate, beta=momentum, weight_decay=decay, muon_weight_dimension_numbers=_matrices
    ),
    "rmsprop": lambda rate, momentum, decay: optax.chain(
        optax.add_decayed_weights(decay, mask=_decay_mask),
        optax.rmsprop(rate, momentum=momentum),
    ),
}
WITH_MOMENTUM = ("sgd", "nesterov", "muon", "rmsprop")


def unread(settings: Any) -> dict[str, Any]:
    """Return what a Config changes though its optimiser, loss or schedule has no use for it.

    Names with their defaults.
    """
    read = {
        "momentum": settings.optimizer in WITH_MOMENTUM,
        "label_smoothing": settings.loss in WITH_SMOOTHING,
        "warmup": settings.schedule not in WITH_OWN_WARMUP,
    }
    usual = {field.name: field.default for field in dataclasses.fields(settings)}
    return {k: usual[k] for k in read if not read[k] and getattr(settings, k) != usual[k]}


def build(
    name: str,
    learning_rate: Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """Return the optimiser `name`; `weight_decay` is decoupled for adam, adamw, lion and muon."""
    tx = OPTIMIZERS[name](learning_rate, momentum, weight_decay)
    return tx if clip_norm is None else optax.chain(optax.clip_by_global_norm(clip_norm), tx)

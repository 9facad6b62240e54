"""Losses, schedules and optimisers: known values, shapes of curves, all of them descend."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import optimization as opt

STEPS = 100


def test_cross_entropy_is_minus_log_probability() -> None:
    logits = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    labels = jnp.array([2, 1])
    expected = -jax.nn.log_softmax(logits)[jnp.arange(2), labels]
    np.testing.assert_allclose(opt.LOSSES["cross_entropy"](logits, labels, 0.0), expected)
    smooth = opt.LOSSES["cross_entropy"](logits, labels, 0.3)
    mix = 0.7 * expected - 0.3 * jax.nn.log_softmax(logits).mean(axis=-1)
    np.testing.assert_allclose(smooth, mix, rtol=1e-6)


@pytest.mark.parametrize("name", opt.LOSSES)
def test_losses_prefer_the_right_class(name: str) -> None:
    labels = jnp.array([0])
    right, wrong = jnp.array([[4.0, -4.0, -4.0]]), jnp.array([[-4.0, 4.0, -4.0]])
    loss = opt.LOSSES[name]
    assert loss(right, labels, 0.0).shape == (1,)
    assert float(loss(right, labels, 0.0)[0]) < 0.1 < float(loss(wrong, labels, 0.0)[0])


@pytest.mark.parametrize("name", opt.LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_targets_is_the_mean_over_their_classes(name: str, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    shares = jnp.asarray(rng.dirichlet(np.ones(3), size=4), jnp.float32)
    loss = opt.LOSSES[name]
    each = jnp.stack([loss(logits, jnp.full(4, k), smoothing) for k in range(3)], axis=-1)
    expected = jnp.sum(shares * each, axis=-1)
    np.testing.assert_allclose(loss(logits, shares, smoothing), expected, rtol=1e-5)
    labels = jnp.array([0, 2, 1, 1])
    certain = loss(logits, jax.nn.one_hot(labels, 3), smoothing)
    np.testing.assert_allclose(certain, loss(logits, labels, smoothing), rtol=1e-5)


@pytest.mark.parametrize("name", opt.SCHEDULES)
def test_schedules_reach_the_peak_and_never_pass_it(name: str) -> None:
    rates = np.array([opt.schedule(name, 0.1, steps=STEPS, warmup=0.1)(i) for i in range(STEPS)])
    assert rates.max() == pytest.approx(0.1, rel=1e-3)
    assert (rates > 0).all()
    rise = 9 if name != "one_cycle" else 30
    assert (np.diff(rates[:rise]) > 0).all()
    if name != "constant":
        assert rates[-1] < 0.02


@pytest.mark.parametrize("name", opt.OPTIMIZERS)
def test_optimisers_descend(name: str) -> None:
    tx = opt.build(name, opt.schedule("constant", 0.03, steps=STEPS), clip_norm=1.0)
    params = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}

    def objective(p: dict[str, jax.Array]) -> jax.Array:
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(p))  # type: ignore[return-value]

    start, state = float(objective(params)), tx.init(params)

    @jax.jit
    def step(params: dict[str, jax.Array], state: Any) -> tuple[dict[str, jax.Array], Any]:
        updates, state = tx.update(jax.grad(objective)(params), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    assert float(objective(params)) < 0.3 * start


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "muon"])
def test_weight_decay_spares_biases(name: str) -> None:
    tx = opt.build(name, opt.schedule("constant", 0.1, steps=1), weight_decay=0.5)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert (np.asarray(updates["kernel"]) < 0).all()
    assert (np.asarray(updates["bias"]) == 0).all()


def test_muon_turns_kernels_and_leaves_vectors_to_adam() -> None:
    """The update of a kernel, seen as inputs x outputs, has singular values near one (times lr)."""
    tx = opt.build("muon", opt.schedule("constant", 1.0, steps=1), momentum=0.0)
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.zeros((3, 3, 2, 4)), "bias": jnp.zeros(4)}
    grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    updates, _ = tx.update(grads, tx.init(params), params)
    singular = np.linalg.svd(np.asarray(updates["kernel"]).reshape(18, 4), compute_uv=False)
    assert singular.min() > 0.6 * singular.max()
    bias = np.abs(updates["bias"])
    np.testing.assert_allclose(bias, bias[0], rtol=1e-3)

"""The step is pure, masks its padding, moves batch statistics and draws fresh dropout."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.config import FIELDS
from cnnjax.nets.classifier import AUXILIARY
from cnnjax.ops import augmentation
from cnnjax.optimization import LOSSES
from cnnjax.train.parallel import PARALLEL
from cnnjax.train.precision import GROWTH, PRECISIONS
from cnnjax.train.progress import leaf_name
from cnnjax.train.step import Method, TrainState, create_state, eval_step, train_step

SHAPE = (4, 4, 1)


class Net(nn.Module):
    """Dense, batch norm, dropout: everything a step has to carry."""

    norm: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Dense(5)(x.reshape(len(x), -1))
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(3)(x)


def unit(images: jax.Array) -> jax.Array:
    return images / 255.0


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return LOSSES["cross_entropy"](logits, labels, 0.0)


def batch(rows: int, real: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    real = rows if real is None else real
    return {
        "image": rng.integers(0, 256, (rows, *SHAPE), np.uint8),
        "label": rng.integers(0, 3, rows, np.int32),
        "weight": (np.arange(rows) < real).astype(np.float32),
    }


def make(net: Net, tx: Any = None) -> tuple[Any, TrainState]:
    tx = tx or optax.sgd(0.1)
    step = train_step(net, tx, transform=unit, loss=loss)
    return jax.jit(step), create_state(net, tx, jax.random.key(0), SHAPE)


def same(a: Any, b: Any) -> bool:
    equal = jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)
    return all(jax.tree.leaves(equal))


def test_padding_rows_change_nothing() -> None:
    step, state = make(Net())
    whole = batch(8, real=5)
    short = {name: value[:5] for name, value in whole.items()}
    (a, sums), (b, expected) = step(state, whole), step(state, short)
    assert sums["count"] == expected["count"] == 5
    np.testing.assert_allclose(sums["loss"], expected["loss"], rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a.params, b.params)
    changed = {**whole, "image": whole["image"].copy()}
    changed["image"][5:] = 7
    assert same(step(state, changed)[0].params, a.params)


def test_a_batch_of_padding_alone_is_no_step() -> None:
    step, state = make(Net())
    after, sums = step(state, batch(4, real=0))
    assert sums["count"] == 0
    assert same(after.params, state.params)


def test_batch_norm_keeps_running_statistics() -> None:
    step, state = make(Net(norm=True))
    after, _ = step(state, batch(16))
    assert not same(after.collections, state.collections)
    evaluate = eval_step(Net(norm=True), transform=unit, loss=loss)
    logits, _ = evaluate(after.variables, batch(16))
    alone, _ = evaluate(after.variables, {k: v[:1] for k, v in batch(16).items()})
    np.testing.assert_allclose(alone[0], logits[0], atol=1e-6)


def test_dropout_differs_from_step_to_step_and_repeats_with_the_state() -> None:
    step, state = make(Net(dropout=0.5), optax.sgd(0.0))
    _, first = step(state, batch(16))
    moved, again = step(state, batch(16))
    _, second = step(moved, batch(16))
    assert float(first["loss"]) == float(again["loss"])
    assert float(first["loss"]) != float(second["loss"])


@pytest.mark.parametrize("norm", [False, True])
def test_one_trace_serves_all_steps(norm: bool) -> None:
    traces = []

    def counted(images: jax.Array) -> jax.Array:
        traces.append(1)
        return unit(images)

    net, tx = Net(norm=norm), optax.adam(0.1)
    step = jax.jit(train_step(net, tx, transform=counted, loss=loss), donate_argnums=0)
    state = create_state(net, tx, jax.random.key(0), SHAPE)
    before = []
    for _ in range(5):
        state, sums = step(state, batch(16))
        before.append(float(sums["loss"]))
    assert len(traces) == 1
    assert before[-1] < before[0]
    assert int(state.step) == 5
    assert jnp.isfinite(sums["loss"])


@functools.cache
def trained(net: Net, rows: int = 16, **how: Any) -> tuple[Any, dict[str, Any]]:
    """Return (state, sums) after one step of SGD on 13 real rows of 16."""
    tx, method = optax.sgd(0.5), Method(**how)
    step = jax.jit(train_step(net, tx, transform=unit, loss=loss, method=method))
    return step(create_state(net, tx, jax.random.key(0), SHAPE, method), batch(rows, real=13))


def close(a: Any, b: Any, atol: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_microbatches_add_up_to_the_batch(count: int) -> None:
    """With dropout too: the parts take their rows of one mask; some parts have padding alone."""
    (a, sums), (b, expected) = (
        trained(Net(dropout=0.5), microbatches=count),
        trained(Net(dropout=0.5)),
    )
    close(a.params, b.params, 1e-6)
    close(sums, expected, 1e-5)
    assert sums["count"] == 13


@pytest.mark.slow
def test_remat_changes_no_number() -> None:
    (a, _), (b, _) = trained(Net(norm=True), remat=True), trained(Net(norm=True))
    close(a.variables, b.variables, 1e-6)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_low_precision_keeps_float32_state(precision: str) -> None:
    (a, sums), (b, expected) = trained(Net(norm=True), precision=precision), trained(Net(norm=True))
    assert {leaf.dtype for leaf in jax.tree.leaves(a.variables)} == {jnp.dtype("float32")}
    assert abs(sums["loss"] - expected["loss"]) < 0.02 * expected["loss"]
    close(a.params, b.params, 0.02)
    assert not same(a.params, b.params)


@pytest.mark.slow
def test_the_pass_runs_in_the_precision_it_is_told() -> None:
    seen = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
            y = nn.Dense(3)(x.reshape(len(x), -1))
            seen.append(y.dtype)
            return y

    tx, method = optax.sgd(0.1), Method(precision="bf16")
    net: Any = Spy()
    step = train_step(net, tx, transform=unit, loss=loss, method=method)
    step(create_state(net, tx, jax.random.key(0), SHAPE, method), batch(4))
    assert seen[-1] == jnp.bfloat16


def test_an_overflow_in_float16_costs_a_step_and_halves_the_scale() -> None:
    net, tx, method = Net(), optax.sgd(0.1), Method(precision="f16", average=0.9)
    step = jax.jit(train_step(net, tx, transform=unit, loss=loss, method=method))
    state: Any = create_state(net, tx, jax.random.key(0), SHAPE, method)
    huge = state.replace(scale=state.scale.replace(factor=jnp.float32(2.0**30)))
    after, sums = step(huge, batch(8))
    assert same((after.params, after.average), (huge.params, huge.average))
    assert float(after.scale.factor) == 2.0**29
    assert int(after.step) == 1 and float(sums["count"]) == 0
    ready = state.replace(scale=state.scale.replace(steps=jnp.int32(GROWTH - 1)))
    after, sums = step(ready, batch(8))
    assert float(after.scale.factor) == 2 * float(state.scale.factor)
    assert not same(after.params, state.params) and int(sums["count"]) == 8


def test_a_loss_that_is_not_finite_shows_in_float16_too() -> None:
    net, tx, method = Net(), optax.sgd(0.1), Method(precision="f16")
    step = train_step(net, tx, transform=lambda x: unit(x) * jnp.nan, loss=loss, method=method)
    state: Any = create_state(net, tx, jax.random.key(0), SHAPE, method)
    for _ in range(12):
        state, sums = jax.jit(step)(state, batch(8))
    assert not np.isfinite(sums["loss"])


def test_the_average_follows_the_parameters_and_is_what_is_evaluated() -> None:
    state, _ = trained(Net(), average=0.75)
    before = create_state(Net(), optax.sgd(0.5), jax.random.key(0), SHAPE)
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, before.params, state.params)
    close(state.average, expected, 1e-7)
    assert same(state.variables["params"], state.average)


def test_gradient_norms_are_named_in_order() -> None:
    state, sums = trained(Net())
    names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
    start = create_state(Net(), optax.sgd(0.5), jax.random.key(0), SHAPE)
    moved = jax.tree.map(
        lambda a, b: float(jnp.linalg.norm(a - b)) / 0.5, start.params, state.params
    )
    np.testing.assert_allclose(sums["gradients"], jax.tree.leaves(moved), rtol=1e-4, atol=1e-6)
    assert names == ["Dense_0/bias", "Dense_0/kernel", "Dense_1/bias", "Dense_1/kernel"]


def test_config_offers_what_there_is() -> None:
    assert FIELDS["precision"].metadata["kind"].metavar.split("|") == [*PRECISIONS]
    assert FIELDS["parallel"].metadata["kind"].metavar.split("|") == [*PARALLEL]


class Aside(nn.Module):
    """A net with an auxiliary head, which speaks in training alone."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = x.reshape(len(x), -1)
        head = nn.Dense(3, name="head")(x)
        if train:
            self.sow(AUXILIARY, "early", head)
        return nn.Dense(3, name="logits")(x)


def test_auxiliary_heads_learn_and_are_not_reported() -> None:
    step, state = make(Aside())  # type: ignore[arg-type]
    after, sums = step(state, batch(8))
    assert not same(after.params["head"], state.params["head"])
    logits, plain = eval_step(Aside(), transform=unit, loss=loss)(state.variables, batch(8))
    np.testing.assert_allclose(sums["loss"], plain["loss"], rtol=1e-6)
    assert logits.shape == (8, 3)


def soften(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Average each image with another one, and its label."""
    order = jax.random.permutation(key, len(images))
    targets = jax.nn.one_hot(labels, 3)
    return (images // 2 + images[order] // 2), (targets + targets[order]) / 2


def mixed(**how: Any) -> tuple[TrainState, Any]:
    method, net, tx = Method(**how), Net(), optax.sgd(0.5)
    step = train_step(net, tx, transform=unit, loss=loss, mix=soften, method=method)
    return jax.jit(step)(
        create_state(net, tx, jax.random.key(0), SHAPE, method), batch(16, real=13)
    )


def test_mixed_images_have_the_loss_of_their_targets() -> None:
    (state, sums), rows = mixed(), batch(16, real=13)
    start = create_state(Net(), optax.sgd(0.5), jax.random.key(0), SHAPE)
    key = jax.random.fold_in(jax.random.fold_in(start.key, 0), 3)
    real = np.arange(16) % 13  # no padding is mixed into an image
    images, targets = soften(key, rows["image"][real], rows["label"][real])
    logits = Net().apply(start.variables, unit(images), train=False)
    expected = -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)
    np.testing.assert_allclose(sums["loss"], jnp.sum(expected[:13]), rtol=1e-5)
    hits = jnp.argmax(logits, axis=-1)[:13] == rows["label"][:13]
    assert int(sums["correct"]) == int(hits.sum())
    assert not same(state.params, trained(Net())[0].params)


@pytest.mark.parametrize("blend", [augmentation.mixup, augmentation.cutmix])
def test_padding_is_mixed_into_nothing(blend: Any) -> None:
    def mix(key: jax.Array, images: jax.Array, labels: jax.Array) -> Any:
        return blend(key, images, jax.nn.one_hot(labels, 3), alpha=1.0)

    tx = optax.sgd(0.1)
    step = jax.jit(train_step(Net(), tx, transform=unit, loss=loss, mix=mix))
    state, padded = create_state(Net(), tx, jax.random.key(0), SHAPE), batch(8, real=5)
    changed = {name: value.copy() for name, value in padded.items()}
    changed["image"][5:], changed["label"][5:] = 255, 0
    (a, sums), (b, others) = step(state, padded), step(state, changed)
    assert same(a.params, b.params) and same(sums, others)
    assert not same(a.params, make(Net())[0](state, padded)[0].params)


@pytest.mark.slow
def test_mixing_sees_the_whole_batch_in_every_microbatch() -> None:
    (a, sums), (b, expected) = mixed(microbatches=4), mixed()
    close(a.params, b.params, 1e-6)
    close(sums, expected, 1e-5)

"""The step is pure, masks its padding, moves batch statistics and draws fresh dropout."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.optimization import LOSSES
from cnnjax.train.step import TrainState, create_state, eval_step, train_step

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

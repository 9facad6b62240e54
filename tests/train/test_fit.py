"""The loop: whole-set means, one line an epoch, and a loss that is not finite stops it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data import Split
from cnnjax.train.fit import Diverged, evaluate, fit

SPLIT = Split(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), np.arange(10, dtype=np.int32))


class State:
    """Stands in for a TrainState: counts its steps and the labels it saw."""

    def __init__(self) -> None:
        self.step, self.seen = 0, []  # type: ignore[var-annotated]


def step(state: State, batch: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    state.step += 1
    state.seen += batch["label"][batch["weight"] == 1].tolist()
    weight = jnp.asarray(batch["weight"])
    label = jnp.asarray(batch["label"], jnp.float32)
    return state, {
        "loss": jnp.sum(weight * label),
        "correct": jnp.sum(weight * (label < 3)),
        "count": jnp.sum(weight),
    }


def test_lines_are_means_over_the_whole_set() -> None:
    lines: list[dict[str, Any]] = []
    state: Any = State()
    fit(step, state, SPLIT, epochs=2, batch_size=4, seed=0, on_epoch=lines.append)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["loss"] == 4.5 and line["accuracy"] == 0.3 for line in lines)
    assert sorted(state.seen) == sorted([*range(10)] * 2)
    assert state.seen[:10] != state.seen[10:]


def test_evaluation_is_no_average_of_averages() -> None:
    found = evaluate(
        lambda variables, batch: (None, step(State(), batch)[1]), None, SPLIT, batch_size=4
    )
    assert found == {"loss": 4.5, "accuracy": 0.3, "images": 10}


def test_divergence_stops() -> None:
    def broken(state: State, batch: dict[str, Any]) -> tuple[State, dict[str, Any]]:
        state, sums = step(state, batch)
        return state, {**sums, "loss": jnp.inf if state.step > 3 else sums["loss"]}

    lines: list[dict[str, Any]] = []
    state: Any = State()
    with pytest.raises(Diverged, match="the loss is inf after epoch 2"):
        fit(broken, state, SPLIT, epochs=5, batch_size=4, seed=0, on_epoch=lines.append)
    assert len(lines) == 1

"""The loop: whole-set means, one line an epoch, and a loss that is not finite stops it."""

from __future__ import annotations

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data import Split
from cnnjax.train import fit as loop
from cnnjax.train.batches import feed
from cnnjax.train.fit import Diverged, evaluate, fit
from cnnjax.train.progress import Progress

SPLIT = Split(np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1), np.arange(10, dtype=np.int32))
FEEDS = [feed(SPLIT, batch_size=4, seed=seed) for seed in (0, 1)]


class State:
    """Stands in for a TrainState: counts its steps and the labels it saw."""

    def __init__(self) -> None:
        self.step, self.seen = 0, []  # type: ignore[var-annotated]
        self.params = {"conv": {"bias": 0, "kernel": 0}}


def step(state: Any, batch: dict[str, Any]) -> tuple[State, dict[str, Any]]:
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
    fit(step, state, FEEDS[0], epochs=2, on_epoch=lines.append)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["loss"] == 4.5 and line["accuracy"] == 0.3 for line in lines)
    assert sorted(state.seen) == sorted([*range(10)] * 2)
    assert state.seen[:10] != state.seen[10:]


def test_evaluation_is_no_average_of_averages() -> None:
    found, logits = evaluate(
        lambda variables, batch: (jnp.eye(10)[batch["label"]], step(State(), batch)[1]),
        None,
        SPLIT,
        batch_size=4,
    )
    assert found == {"loss": 4.5, "accuracy": 0.3, "images": 10}
    assert (
        logits.argmax(axis=-1).tolist() == SPLIT.labels.tolist()
    )  # the filled-up last batch aside


@pytest.mark.parametrize("look", [1, 100])
def test_divergence_names_step_and_gradients(monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    monkeypatch.setattr(loop, "LOOK", look)

    def broken(state: Any, batch: dict[str, Any]) -> tuple[State, dict[str, Any]]:
        state, sums = step(state, batch)
        sums["gradients"] = jnp.array([0.5, 10.0 * state.step])
        return state, {**sums, "loss": jnp.inf if state.step > 4 else sums["loss"]}

    lines: list[dict[str, Any]] = []
    state: Any = State()
    text = (
        r"the loss is inf at step 5 \(epoch 2\); "
        "largest gradients a step before: conv/kernel 40, conv/bias 0.5"
    )
    with pytest.raises(Diverged, match=text) as caught:
        fit(broken, state, FEEDS[0], epochs=5, on_epoch=lines.append)
    assert caught.value.step == 5
    assert len(lines) == 1


def test_a_skipped_step_has_no_gradients_to_tell() -> None:
    progress = Progress()
    for loss, count, norm in ((1.0, 4.0, 3.0), (0.0, 0.0, 0.0), (np.nan, 4.0, np.nan)):
        progress.note({"loss": loss, "correct": 0.0, "count": count, "gradients": np.array([norm])})
    with pytest.raises(Diverged, match=r"nan at step 3 .*largest gradients a step before: w 3$"):
        progress.look({"w": np.zeros(1)})


def test_what_overflows_in_the_last_step_is_told() -> None:
    variables = {"params": {"conv": {"kernel": np.ones(3), "bias": np.array([1.0, np.inf])}}}
    with pytest.raises(Diverged, match="params/conv/bias is not finite after step 7") as caught:
        loop.finite(variables, 7)
    assert caught.value.step == 7
    del variables["params"]["conv"]["bias"]
    assert loop.finite(variables, 7) is variables


def test_going_on_from_any_step_is_as_if_never_stopped() -> None:
    """The position is (epoch, batch); sums of a part of an epoch are carried along."""

    class Stop(Exception):
        pass

    whole: list[dict[str, Any]] = []
    calm: Any = State()
    fit(step, calm, FEEDS[1], epochs=3, on_epoch=whole.append)
    for stop in range(1, 9):
        saved: list[str] = []

        def save(state: Any, progress: Progress, stop: int = stop, saved: Any = saved) -> None:
            if progress.step == stop:
                progress.look(state.params)
                saved.append(json.dumps(progress.saved()))
                raise Stop

        state: Any = State()
        with pytest.raises(Stop):
            fit(step, state, FEEDS[1], epochs=3, between=save)
        progress = Progress.restored(json.loads(saved[0]))
        fit(step, state, FEEDS[1], epochs=3, progress=progress)
        assert state.seen == calm.seen
        assert [timeless(line) for line in progress.lines] == [timeless(line) for line in whole]


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "seconds"}

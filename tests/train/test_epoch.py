"""Many steps as one dispatch: one program for every count of them, and where it is the default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.config import Config
from cnnjax.data import Split
from cnnjax.train import epoch
from cnnjax.train.epoch import many_steps
from cnnjax.train.parallel import make_plan
from cnnjax.train.training import steps_at_a_time

SPLIT = Split(np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1), np.arange(10, dtype=np.int32))


def test_one_program_takes_every_count_of_steps() -> None:
    traces = []

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        traces.append(1)
        seen = jnp.sum(batch["image"].astype(jnp.float32), axis=(1, 2, 3)) * batch["weight"]
        return state * 2 + seen[0], {"loss": jnp.sum(seen), "labels": batch["label"]}

    chunk = jax.jit(many_steps(step))
    rows = np.array([[3, 1], [4, 1], [5, 9], [2, 6]])
    weight = np.array([[1, 1], [1, 1], [1, 0], [1, 1]], np.float32)
    for count in range(5):
        state, sums = chunk(np.float32(1), *SPLIT, rows, weight, np.int32(count))
        expected, losses = np.float32(1), np.zeros(4, np.float32)
        for index in range(count):
            seen = SPLIT.images[rows[index]].sum(axis=(1, 2, 3)) * weight[index]
            expected, losses[index] = expected * 2 + seen[0], seen.sum()
        assert state == expected
        np.testing.assert_array_equal(sums["loss"], losses)
        np.testing.assert_array_equal(sums["labels"][:count], rows[:count])
        assert not np.any(sums["labels"][count:])
    assert len(traces) == 1


class OnDisk:
    """Images that are no array."""

    shape = SPLIT.images.shape


@pytest.mark.parametrize(
    ("knobs", "devices", "images", "platform", "steps"),
    [
        ({}, 1, SPLIT.images, "cpu", 1),
        ({}, 1, SPLIT.images, "gpu", 100),
        ({"unit": "step"}, 1, SPLIT.images, "gpu", 1),
        ({"unit": "epoch"}, 1, SPLIT.images, "cpu", None),
        ({"data_workers": 0}, 1, SPLIT.images, "gpu", 1),
        ({}, 2, SPLIT.images, "gpu", 1),
        ({}, 1, OnDisk(), "gpu", 1),
        ({}, 1, np.repeat(SPLIT.images, 2, axis=0), "gpu", 1),
    ],
)
def test_what_a_device_is_given_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
    knobs: dict[str, Any],
    devices: int,
    images: Any,
    platform: str,
    steps: int | None,
) -> None:
    plan, config = make_plan(None, devices), replace(Config(), **knobs)
    monkeypatch.setattr(epoch, "RESIDENT_BYTES", SPLIT.images.nbytes)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert steps_at_a_time(config, plan, Split(images, SPLIT.labels)) == steps

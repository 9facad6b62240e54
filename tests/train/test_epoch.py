"""Many steps as one dispatch: one program for every count of them, and where it is the default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from cnnjax.config import Config
from cnnjax.data import Split
from cnnjax.train import epoch
from cnnjax.train.batches import feed
from cnnjax.train.epoch import fit_in_chunks, many_steps
from cnnjax.train.fit import fit
from cnnjax.train.parallel import make_plan
from cnnjax.train.training import steps_at_a_time

SPLIT = Split(np.arange(40, dtype=np.uint8).reshape(10, 2, 2, 1), np.arange(10, dtype=np.int32))


class Number(struct.PyTreeNode):
    """A state that depends on every batch and their order."""

    value: Any
    params: Any = None


def step(state: Number, batch: Any) -> tuple[Number, Any]:
    value = state.value * 3 % 1009 + jnp.dot(batch["label"], batch["weight"])
    sums = {"loss": value, "correct": jnp.float32(0), "count": jnp.sum(batch["weight"])}
    return Number(value), sums


@pytest.mark.parametrize(
    ("every", "dispatches", "asked"),
    [(3, [3, 3, 1, 1, 1, 3, 1, 1], [3, 6, 7, 8, 9, 12, 13, 14]), (None, [7, 7], [7, 14])],
)
def test_two_programs_are_all(every: int | None, dispatches: list[int], asked: list[int]) -> None:
    """Of 7 steps an epoch, the last one short: chunks, and single steps; the numbers of fit."""
    taken, stops = list[int](), list[int]()
    lines: tuple[list[Any], list[Any]] = [], []

    def single(state: Any, batch: Any) -> Any:
        taken.append(1)
        return jax.jit(step)(state, batch)

    def chunk(state: Any, images: Any, labels: Any, rows: Any, weight: Any) -> Any:
        taken.append(len(rows))
        return jax.jit(many_steps(step))(state, images, labels, rows, weight)

    split = Split(np.repeat(SPLIT.images, 2, axis=0), np.arange(20, dtype=np.int32))
    reading: Any = {"batch_size": 3, "seed": 0}
    found = fit_in_chunks(
        chunk, single, Number(np.float32(0)), split, epochs=2, every=every, **reading,
        between=lambda state, progress: stops.append(progress.step), on_epoch=lines[0].append,
    )  # fmt: skip
    assert taken == dispatches
    assert stops == asked
    batches = feed(split, **reading)
    expected = fit(
        jax.jit(step), Number(np.float32(0)), batches, epochs=2, on_epoch=lines[1].append
    )
    assert found.value == expected.value
    told = [[{k: v for k, v in x.items() if k != "seconds"} for x in run] for run in lines]
    assert told[0] == told[1]


class OnDisk:
    """Images that are no array."""

    shape = SPLIT.images.shape


@pytest.mark.parametrize(
    ("knobs", "devices", "images", "platform", "steps"),
    [
        ({}, 1, SPLIT.images, "cpu", 1),
        ({}, 1, SPLIT.images, "gpu", 20),
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

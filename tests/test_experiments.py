"""The studies of experiments/: grids of the size they say, and, small, the answer they expect."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from cnnjax.cli.study import load
from cnnjax.config import Config
from cnnjax.study.results import label
from cnnjax.study.trial import run


@pytest.mark.parametrize(
    ("name", "trials"),
    [
        ("pooling_and_stride", 63),
        ("recos", 9),
        ("he2015", 12),
        ("scherer2010", 90),
        ("padding_and_head", 120),
        ("blur_where", 20),
    ],
)
def test_grids(name: str, trials: int) -> None:
    study = load(name)
    assert len(study.trials()) == trials
    assert study.contrast is not None
    arms = [study.contrast.arm, study.contrast.against, study.contrast.where]
    for arm in arms:
        # A contrast selects rows of the table, where a tuple is 3x2.
        assert all(value in map(label, study.axes[axis]) for axis, value in arm.items())


def metrics(config: Config, **choices: Any) -> dict[str, float]:
    return run(dataclasses.replace(config, **choices))["metrics"]


@pytest.mark.slow
@pytest.mark.long
def test_twenty_layers_learn_from_he_alone() -> None:
    base, deep = load("he2015").base, load("he2015").axes["widths"][1]
    he, xavier = (metrics(base, widths=deep, initializer=name) for name in ("he", "xavier"))
    assert he["accuracy"] > 0.7
    assert xavier["accuracy"] < 0.2


@pytest.mark.slow
@pytest.mark.shared
def test_reversed_digits() -> None:
    base = load("recos").base
    found = metrics(base, dataset="mnist:train=4000:test=1000", data_dir=os.environ["CNNJAX_DATA"])
    assert found["accuracy_reversed"] < 0.6 < 0.9 < found["accuracy"]
    assert found["accuracy_recentred"] == pytest.approx(found["accuracy"], abs=0.002)

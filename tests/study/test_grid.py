"""Grids: products, changes, arms that are one function, and descriptions that come back."""

from __future__ import annotations

import json

import pytest

from cnnjax import data
from cnnjax.cli.study import load
from cnnjax.config import Config, trial_id
from cnnjax.study import grid
from cnnjax.study.grid import Contrast, Study, Trial

BASE = Config(window=3, padding="CIRCULAR", head="gap")


def study(**axes: tuple[object, ...]) -> Study:
    return Study(name="s", question="?", base=BASE, axes=axes)


def test_trials_are_the_product_with_the_first_axis_slowest() -> None:
    trials = study(pool=("max", "mean"), stride=(2, 3), seed=(0, 1)).trials()
    cells = [(t.config.pool, t.config.stride, t.config.seed) for t in trials]
    assert cells == [(p, s, n) for p in ("max", "mean") for s in (2, 3) for n in (0, 1)]
    assert len({t.id for t in trials}) == 8


def test_equal_cells_appear_once() -> None:
    assert len(study(pool=("decimate",), window=(2, 3), stride=(2,)).trials()) == 1


@pytest.mark.parametrize(
    ("pool", "stride", "window", "arm"),
    [
        ("aps", 1, 3, "decimate"),
        ("aps", 2, 3, None),
        ("decimate", 1, 3, None),
        ("max", 1, 3, None),
        ("max", 2, 1, "decimate"),
        ("mean", 3, 1, "decimate"),
    ],
)
def test_arms_that_are_the_same_function_share_a_trial(
    pool: str, stride: int, window: int, arm: str | None
) -> None:
    trial = Trial(Config(pool=pool, stride=stride, window=window, padding="CIRCULAR", head="gap"))
    assert trial.runs.pool == (arm or pool)
    assert trial.same_as == (None if arm is None else trial_id(trial.runs))


def test_an_unset_window_is_the_published_one_and_not_the_stride() -> None:
    assert Trial(Config(pool="max", stride=1)).same_as is None  # cnn's own window is 2


def test_changes_replace_axes_and_fixed_values() -> None:
    changed = study(pool=("max", "mean"), seed=(0, 1)).changed(
        {"pool": ("aps",), "stride": (2, 3), "epochs": (7,)}
    )
    assert changed.axes == {"seed": (0, 1), "stride": (2, 3)}
    assert (changed.base.pool, changed.base.epochs) == ("aps", 7)


def test_description_round_trip() -> None:
    original = Study(
        name="s",
        question="?",
        base=BASE,
        axes={"window": (2, (3, 2)), "seed": (0, 1)},
        contrast=Contrast("accuracy", {"window": 2}, {"window": (3, 2)}, {"stride": 2}),
    )
    text = json.dumps(original.describe())
    assert Study.from_description(json.loads(text)).trials() == original.trials()


def test_what_does_not_fit_is_refused_before_anything_runs() -> None:
    trials = study(pool=("max", "aps"), stride=(2,)).trials()
    dataset = data.load("digits_canvas:train=20:test=10")
    with pytest.raises(ValueError, match=r"pool=aps.*does not divide"):
        grid.check(trials, dataset)


def test_unknown_axis() -> None:
    with pytest.raises(ValueError, match="axis: unknown name 'strid'; did you mean stride"):
        study(strid=(1,))


def test_the_default_study_is_the_one_promised() -> None:
    default = load("pooling_and_stride")
    assert default.axes == {
        "pool": ("max", "min", "sum", "mean", "decimate", "max_blur", "aps"),
        "stride": (1, 2, 3),
        "seed": (0, 1, 2),
    }
    assert (default.base.window, default.base.padding, default.base.head) == (3, "CIRCULAR", "gap")
    trials = default.trials()
    assert len(trials) == 63
    assert len({trial_id(t.runs) for t in trials}) == 60

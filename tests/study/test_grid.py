"""Grids: products, changes, arms that are one function, and descriptions that come back."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest

from cnnjax import data
from cnnjax.cli.study import load
from cnnjax.config import Config, trial_id
from cnnjax.study import grid
from cnnjax.study.grid import Condition, Contrast, Range, Study, Trial, sampled
from cnnjax.study.statistics.contrast import check_arms

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


@pytest.mark.parametrize(
    ("choices", "arm"),
    [
        ({"pool": "max_blur:filter_size=1", "window": 3, "padding": "CIRCULAR"}, "max"),
        # On an even map SAME samples the dense map elsewhere than the windows of a maximum.
        ({"pool": "max_blur:filter_size=1", "window": 3, "padding": "SAME"}, None),
        # decimate sits before the norm, which does not commute with sampling.
        ({"pool": "blur:filter_size=1", "norm": "batch"}, None),
        ({"pool": "max", "window": 1, "norm": "batch"}, None),
        ({"pool": "blur:filter_size=1", "norm": "batch", "stride": 1}, "decimate"),
    ],
    ids=str,
)
def test_only_what_is_the_same_function_shares_a_trial(
    choices: dict[str, Any], arm: str | None
) -> None:
    config = Config(**({"net": "cnn", "stride": 2} | choices))
    assert Trial(config).runs.pool == (arm or config.pool)


@pytest.mark.parametrize(
    ("reads", "unread"),
    [
        ({"optimizer": "sgd"}, {"momentum": 0.5}),
        ({"loss": "sigmoid"}, {"label_smoothing": 0.1}),
        ({"schedule": "cosine"}, {"warmup": 0.5}),
    ],
)
def test_a_knob_that_nothing_reads_makes_no_trial_of_its_own(
    reads: dict[str, Any], unread: dict[str, Any]
) -> None:
    read = Trial(dataclasses.replace(BASE, **reads, **unread))
    assert read.same_as is None
    others = {"optimizer": "adam", "loss": "hinge", "schedule": "one_cycle"}
    plain = dataclasses.replace(BASE, **{name: others[name] for name in reads})
    assert Trial(dataclasses.replace(plain, **unread)).runs == plain


def test_a_contrast_has_its_arms_in_the_grid() -> None:
    def about(**arms: Any) -> Study:
        contrast = Contrast("accuracy", **arms)
        return dataclasses.replace(study(pool=("max", "mean")), contrast=contrast)

    check_arms(about(arm={"pool": "mean"}, against={"pool": "max"}, where={"window": 3}))
    for wrong in ({"arm": {"pool": "aps"}}, {"where": {"window": 2}}):
        arms = {"arm": {"pool": "mean"}, "against": {"pool": "max"}} | wrong
        with pytest.raises(ValueError, match=r"contrast: .* is not in the grid: "):
            check_arms(about(**arms))


def test_a_last_pool_that_is_the_pool_is_none() -> None:
    plain, same = Trial(BASE), Trial(dataclasses.replace(BASE, pool="max", last_pool="max"))
    assert plain.same_as is None
    assert same.same_as == trial_id(dataclasses.replace(BASE, pool="max"))
    other = Trial(dataclasses.replace(BASE, pool="aps", stride=1, last_pool="max")).runs
    assert (other.pool, other.last_pool, other.window) == ("decimate", "max", 3)


def test_factors_are_axes_and_zips_with_several_values() -> None:
    wide = study(pool=("max", "mean"), window=(2, 3), stride=(2, 3), lr=(0.1,), seed=(0, 1))
    assert wide.factors == [("pool",), ("window",), ("stride",)]
    zipped = dataclasses.replace(wide, zipped=(("window", "stride"),))
    assert zipped.factors == [("pool",), ("window", "stride")]


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


def test_zipped_axes_go_together_and_the_rest_is_multiplied() -> None:
    zipped = dataclasses.replace(
        study(stride=(2, 3), seed=(0, 1), window=(3, 5)), zipped=(("stride", "window"),)
    )
    cells = [(t.config.stride, t.config.window, t.config.seed) for t in zipped.trials()]
    assert cells == [(2, 3, 0), (2, 3, 1), (3, 5, 0), (3, 5, 1)]
    fixed = zipped.changed({"stride": (2,)})
    assert [(t.config.stride, t.config.window) for t in fixed.trials()][:2] == [(2, 3), (2, 5)]


@pytest.mark.parametrize(
    ("zipped", "text"),
    [
        ((("stride", "pool"),), "expected equally many values, got stride 2, pool 1"),
        ((("stride", "window"), ("window", "seed")), "window stands in two groups"),
        ((("stride", "lr"),), "zipped: unknown name 'lr'"),
    ],
)
def test_zips_that_do_not_fit(zipped: tuple[tuple[str, ...], ...], text: str) -> None:
    grid_ = study(stride=(2, 3), window=(2, 3), seed=(0, 1), pool=("max",))
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(grid_, zipped=zipped)


NINTHS = Condition("stride 3 with window 3 only", lambda c: c.stride != 3 or c.window == 3)


def test_conditions_leave_cells_out() -> None:
    some = dataclasses.replace(study(stride=(2, 3), window=(2, 3)), conditions=(NINTHS,))
    cells = [(t.config.stride, t.config.window) for t in some.trials()]
    assert cells == [(2, 2), (2, 3), (3, 3)]


def test_a_description_knows_zips_conditions_and_expectations() -> None:
    original = dataclasses.replace(
        study(stride=(2, 3), window=(2, (3, 2)), padding=("CIRCULAR", "ZEROS"), seed=(0, 1)),
        conditions=(NINTHS,),
        zipped=(("padding", "seed"),),
        contrast=Contrast("accuracy", {"window": (3, 2)}, {"window": 2}, {}, 1, "Zhang 2019", 0.1),
    )
    text = json.dumps(original.describe())
    back = Study.from_description(json.loads(text))
    assert back.trials() == original.trials() and len(back.trials()) == 4
    assert json.dumps(back.describe()) == text
    assert (back.contrast, back.conditions[0].text) == (original.contrast, NINTHS.text)


def test_a_description_of_before_zips_is_read() -> None:
    old = study(stride=(2, 3)).describe()
    del old["zipped"], old["conditions"]
    assert Study.from_description(old).trials() == study(stride=(2, 3)).trials()


def test_sampling_is_seeded_and_fills_every_slice_once() -> None:
    ranges = {"lr": Range(1e-4, 1e-1, log=True), "batch_size": Range(8, 64, whole=True)}
    first = sampled(ranges, count=10, seed=3)
    assert first == sampled(ranges, count=10, seed=3) != sampled(ranges, count=10, seed=4)
    slices = np.floor(10 * np.log(np.array(first["lr"]) / 1e-4) / np.log(1e3)).astype(int)
    assert sorted(slices) == list(range(10))
    assert all(isinstance(size, int) and 8 <= size <= 64 for size in first["batch_size"])
    short, long = (sampled(ranges, count=n, method="random") for n in (4, 9))
    assert short["lr"] == long["lr"][:4]
    drawn = Study(name="s", question="?", base=BASE, axes=first, zipped=(tuple(first),))
    assert len(drawn.trials()) == 10


def test_ranges_and_contrasts_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="range: expected 0 < low < high, got 0 to 1"):
        Range(0, 1, log=True)
    with pytest.raises(ValueError, match="method: unknown name 'sobol'"):
        sampled({"lr": Range(0, 1)}, count=2, method="sobol")
    with pytest.raises(ValueError, match="expected: expected 1, -1, 0 or None, got 2"):
        Contrast("accuracy", {"pool": "max"}, {}, expected=2)
    with pytest.raises(ValueError, match="margin: expected=0 needs"):
        Contrast("accuracy", {"pool": "max"}, {}, expected=0)


@pytest.mark.parametrize("wrong", [{}, {"axes": 3}, {"contrast": {"no": 1}}, {"base": None}])
def test_a_description_that_is_none_is_one_line(wrong: dict[str, Any]) -> None:
    values = wrong and study(stride=(2, 3)).describe() | wrong
    with pytest.raises(ValueError, match=r"study\.json: no description of a study") as caught:
        Study.from_description(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"arm": {"pol": "aps"}}, "contrast: unknown name 'pol'; did you mean pool"),
        ({"against": {"strid": 2}}, "contrast: unknown name 'strid'; did you mean stride"),
        ({"where": {"side": 2}}, "contrast: unknown name 'side'"),
        ({"against": {"pool": "aps"}}, "two arms that differ, got {'pool': 'aps'} twice"),
        ({"metric": "pool"}, "expected a figure to compare, got the knob pool"),
        ({"margin": -1.0}, "margin: expected a number > 0, got -1.0"),
        ({"margin": float("nan")}, "margin: expected a number > 0, got nan"),
    ],
)
def test_a_contrast_is_checked_before_anything_is_trained(wrong: Any, says: str) -> None:
    right: dict[str, Any] = {"metric": "accuracy", "arm": {"pool": "aps"}}
    right |= {"against": {"pool": "max"}, "where": {"stride": 2}, "margin": 0.01}
    Contrast(**right)
    with pytest.raises(ValueError, match=re.escape(says)):
        Contrast(**{**right, **wrong})

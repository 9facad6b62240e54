"""Shares of variance: exact for made-up grids, statsmodels' sums of squares, t tests squared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from cnnjax.study.grid import Contrast
from cnnjax.study.statistics import compare, factors

BY = ["padding", "head", "pool"]
Figure = Callable[[int, int, int, int], float]


def grid(figure: Figure, *, noise: float = 0.0, seeds: int = 5) -> pd.DataFrame:
    """Return runs of a 2 x 2 x 3 grid; `figure` (seed, padding, head, pool) by number."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "seed": s,
            "padding": ("ZEROS", "CIRCULAR")[i],
            "head": ("flatten", "gap")[j],
            "pool": ("max", "blur", "aps")[k],
            "status": "done",
            "accuracy": figure(s, i, j, k) + noise * rng.normal(),
        }
        for s, i, j, k in itertools.product(range(seeds), range(2), range(2), range(3))
    ]
    return pd.DataFrame(rows)


def table(runs: pd.DataFrame, by: Any = BY) -> pd.DataFrame:
    return factors(runs, by, "accuracy").set_index("effect")


def test_what_alone_matters_has_all_of_the_variance() -> None:
    head = table(grid(lambda s, i, j, k: 0.5 * j + 0.1 * s, noise=1e-6))
    np.testing.assert_allclose(head["share"].drop("head"), 0, atol=1e-9)
    assert head["share"]["head"] == pytest.approx(1)
    exclusive = table(grid(lambda s, i, j, k: float(i != j), noise=1e-6))
    assert exclusive["share"]["padding:head"] == pytest.approx(1)
    assert exclusive["df"].to_dict() == {
        "padding": 1,
        "head": 1,
        "pool": 2,
        "padding:head": 1,
        "padding:pool": 2,
        "head:pool": 2,
        "padding:head:pool": 2,
    }


def test_shares_are_statsmodels_sums_of_squares() -> None:
    runs = grid(lambda s, i, j, k: 0.3 * j + 0.1 * i * k, noise=0.1)
    shares = []
    for _, one in runs.groupby("seed"):
        # Every arm once more, so that the saturated model has degrees of freedom left.
        fit = ols("accuracy ~ padding * head * pool", pd.concat([one, one])).fit()
        squares = anova_lm(fit)["sum_sq"].drop("Residual")
        shares.append(squares / squares.sum())
    expected = pd.DataFrame(shares)
    found = table(runs)
    np.testing.assert_allclose(found["share"], expected.mean()[found.index], rtol=1e-9)
    assert found["share"].sum() == pytest.approx(1)
    half = 2.7764451 * expected.std() / 5**0.5  # Student's t at 4 degrees of freedom
    low = (expected.mean() - half)[found.index].clip(0)
    np.testing.assert_allclose(found["low"], low, rtol=1e-6)


def test_two_levels_are_a_paired_t_test() -> None:
    runs = grid(lambda s, i, j, k: 0.02 * j, noise=0.1)
    difference = compare(runs, Contrast("accuracy", {"head": "gap"}, {"head": "flatten"}))
    assert difference is not None
    sd = difference.paired.sd
    found = table(runs)
    assert found["F"]["head"] == pytest.approx(5 * (difference.mean / sd) ** 2)
    assert found["p"]["head"] == pytest.approx(difference.paired.p)
    assert (found["p_holm"] >= found["p"]).all()


def test_zipped_axes_are_one_factor() -> None:
    runs = grid(lambda s, i, j, k: 0.1 * k + 0.3 * j, noise=0.01)
    runs["window"] = runs["pool"].map({"max": 2, "blur": 3, "aps": 3})
    runs["stride"] = runs["pool"].map({"max": 2, "blur": 2, "aps": 3})
    zipped = table(runs, ["padding", "head", ("window", "stride")])
    assert zipped.index[2] == "window x stride"
    np.testing.assert_allclose(zipped["share"], table(runs)["share"], rtol=1e-9)


def test_seeds_that_lack_an_arm_are_left_out() -> None:
    runs = grid(lambda s, i, j, k: 0.1 * j, noise=0.01)
    whole = table(runs[runs["seed"] != 4])
    runs.loc[len(runs) - 1, "status"] = "failed"
    runs.loc[len(runs) - 1, "accuracy"] = float("nan")
    pd.testing.assert_frame_equal(table(runs), whole)
    assert (whole["n"] == 4).all()


def test_few_seeds_and_no_variance() -> None:
    assert table(grid(lambda s, i, j, k: 0.1 * j, noise=0.01, seeds=2))["p"].isna().all()
    constant = table(grid(lambda s, i, j, k: 1.0))
    assert constant[["share", "F", "p"]].isna().all(axis=None)


def test_grids_that_are_not_full() -> None:
    runs = grid(lambda s, i, j, k: 0.1 * j)
    hole = runs[(runs["padding"] != "ZEROS") | (runs["pool"] != "aps")]
    with pytest.raises(ValueError, match="by: padding, head, pool is no full grid"):
        factors(hole, BY, "accuracy")
    with pytest.raises(ValueError, match="by: head, pool does not tell"):
        factors(runs, ["head", "pool"], "accuracy")

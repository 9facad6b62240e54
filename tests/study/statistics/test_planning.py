"""Power against simulation, against published figures, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cnnjax.study.statistics import power, seeds_needed
from cnnjax.study.statistics.planning import achieved, smallest


def test_seeds_needed_is_what_gpower_says() -> None:
    # Cohen's d_z 0.5, two-sided 5 %, power 80 %: 34 pairs; 0.8: 15 (G*Power's manual, t tests)
    assert seeds_needed(0.5, sd=1.0) == 34
    assert seeds_needed(0.8, sd=1.0) == 15


def test_power_is_the_share_of_simulated_studies_that_find_it() -> None:
    draws = np.random.default_rng(0).normal(1.0, 1.0, (20_000, 6))
    error = draws.std(axis=1, ddof=1) / math.sqrt(6)
    found = np.mean(np.abs(draws.mean(axis=1) / error) > 2.5706)  # t with 5 degrees, 97.5 %
    assert achieved(1.0, 1.0, 6) == pytest.approx(found, abs=0.012)


def test_fewest() -> None:
    for wanted in (0.2, 0.5, 1.0, 3.0):
        n = seeds_needed(wanted, sd=1.0, comparisons=10)
        assert achieved(wanted, 1.0, n, 0.005) >= 0.8
        assert n == 2 or achieved(wanted, 1.0, n - 1, 0.005) < 0.8
        assert smallest(1.0, n, alpha=0.005) <= wanted + 1e-6


def test_edges() -> None:
    assert seeds_needed(0.1, sd=0.0) == 2
    with pytest.raises(ValueError, match=r"wanted: expected wanted > 0.*got 0, 1.0"):
        seeds_needed(0, sd=1.0)
    with pytest.raises(ValueError, match="more than 1000000 seeds"):
        seeds_needed(1e-6, sd=1.0)


def test_after_the_study() -> None:
    arms = {"metric": "accuracy", "arm_a": "a", "arm_b": "b"}
    table = pd.DataFrame(
        [
            {**arms, "n": 5, "sd": 0.01, "p": 0.3},
            {**arms, "n": 1, "sd": math.nan, "p": math.nan},
            {**arms, "n": 3, "sd": 0.0, "p": 1.0},
        ]
    )
    found = power(table, wanted=0.01)
    first = found.iloc[0]
    assert first["comparisons"] == 2
    assert first["seeds_needed"] == seeds_needed(0.01, 0.01, comparisons=2)
    assert first["sd_high"] == pytest.approx(0.01 * math.sqrt(4 / 1.6488), rel=1e-3)  # chi2 table
    assert first["seeds_needed_safe"] > first["seeds_needed"] > 5
    assert first["smallest"] > 0.01 and first["power"] < 0.8
    assert found["seeds_needed"].isna().tolist() == [False, True, True]

"""Paired differences: against scipy's own test, and words that never name a winner too soon."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cnnjax.study.grid import Contrast
from cnnjax.study.statistics import compare, default_contrast, interval, sentence

CONTRAST = Contrast("consistency", {"pool": "aps"}, {"pool": "max"}, {"stride": 2})


def runs(aps: list[float], top: list[float]) -> pd.DataFrame:
    rows = [
        {"pool": pool, "stride": stride, "seed": seed, "consistency": value, "status": "done"}
        for pool, values in (("max", top), ("aps", aps))
        for seed, value in enumerate(values)
        for stride in (2,)
    ]
    return pd.DataFrame([*rows, {**rows[0], "stride": 1, "consistency": 0.0}])


def test_interval_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.9, 0.02, 6), rng.normal(0.8, 0.05, 6)
    found = compare(runs(a.tolist(), b.tolist()), CONTRAST)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.n) == (pytest.approx(float(np.mean(a - b))), 6)


def test_coverage_at_three_seeds() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.0, 1.0, (4000, 3))
    covered = np.mean([low <= 0 <= high for low, high in map(interval, draws)])
    assert abs(covered - 0.95) < 0.012  # 3.5 standard errors


def test_only_seeds_with_both_arms_count() -> None:
    table = runs([0.9, 0.9, 0.9], [0.8, 0.7, 0.6])
    table.loc[table["seed"] == 2, "status"] = "failed"
    found = compare(table, CONTRAST)
    assert found is not None and found.n == 2
    assert compare(table[table["pool"] == "max"], CONTRAST) is None


def test_words() -> None:
    clear = sentence(compare(runs([0.9, 0.91, 0.9], [0.5, 0.51, 0.52]), CONTRAST))
    assert "higher" in clear and "n = 3" in clear and "95 % interval" in clear
    unclear = sentence(compare(runs([0.9, 0.5], [0.5, 0.9]), CONTRAST))
    assert "not distinguishable" in unclear
    alone = sentence(compare(runs([0.9], [0.5]), CONTRAST))
    assert "not distinguishable" in alone and "one seed" in alone
    assert "no pair" in sentence(None)


def test_default_contrast_is_the_second_value_against_the_first() -> None:
    contrast = default_contrast(runs([0.9], [0.5]), ["pool", "stride"])
    assert contrast == Contrast("consistency", {"pool": "aps"}, {"pool": "max"})
    assert default_contrast(runs([0.9], [0.5]).query("pool == 'max'"), ["pool"]) is None

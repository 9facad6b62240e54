"""The study's own difference: pairing, what is left out, and words that name no winner too soon."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cnnjax.study.grid import Contrast
from cnnjax.study.statistics import compare, default_contrast, expectation, sentence

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
    expected = stats.ttest_rel(a, b)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert (found.mean, found.n) == (pytest.approx(float(np.mean(a - b))), 6)
    assert found.paired.p == pytest.approx(expected.pvalue)


def test_only_seeds_with_both_arms_count() -> None:
    table = runs([0.9, 0.9, 0.9, 0.9], [0.8, 0.7, 0.6, np.inf])
    table.loc[table["seed"] == 2, "status"] = "failed"
    found = compare(table, CONTRAST)
    assert found is not None and (found.n, found.dropped) == (2, 2)
    assert "n = 2 seeds (2 left out)" in sentence(found)
    assert compare(table[table["pool"] == "max"], CONTRAST) is None


def test_cells_are_paired_before_they_are_averaged() -> None:
    # Stride 3 costs both pools 0.4. One run of it failed: averaging first would blame the other.
    rows = [
        {"pool": p, "stride": s, "seed": n, "consistency": 0.9 - 0.4 * (s == 3), "status": "done"}
        for p in ("max", "aps")
        for s in (2, 3)
        for n in (0, 1)
    ]
    rows[0]["status"] = "failed"
    found = compare(pd.DataFrame(rows), Contrast("consistency", {"pool": "aps"}, {"pool": "max"}))
    assert found is not None and (found.mean, found.n) == (0.0, 2)


def test_tuples_are_found_by_their_labels() -> None:
    table = runs([0.9, 0.91], [0.5, 0.4]).assign(stride="3x2")
    contrast = Contrast("consistency", {"pool": "aps"}, {"pool": "max"}, {"stride": (3, 2)})
    found = compare(table[table["consistency"] > 0], contrast)
    assert found is not None and found.n == 2
    assert "stride 3x2" in sentence(found)


def test_words() -> None:
    clear = sentence(compare(runs([0.9, 0.91, 0.9], [0.5, 0.51, 0.52]), CONTRAST))
    assert "higher" in clear and "n = 3" in clear and "95 % interval" in clear
    unclear = sentence(compare(runs([0.9, 0.5], [0.5, 0.9]), CONTRAST))
    assert "not distinguishable" in unclear
    alone = sentence(compare(runs([0.9], [0.5]), CONTRAST))
    assert "not distinguishable" in alone and "one seed" in alone
    two = sentence(compare(runs([0.9, 0.9001], [0.5, 0.5]), CONTRAST))
    assert "not distinguishable" in two
    equal = sentence(compare(runs([0.9, 0.9], [0.5, 0.5]), CONTRAST))
    assert "not distinguishable" in equal  # two equal differences are no proof
    assert "no pair" in sentence(None)


def test_default_contrast_is_the_second_value_against_the_first() -> None:
    contrast = default_contrast(runs([0.9], [0.5]), ["pool", "stride"])
    assert contrast == Contrast("consistency", {"pool": "aps"}, {"pool": "max"})
    assert default_contrast(runs([0.9], [0.5]).query("pool == 'max'"), ["pool"]) is None


def test_expected_signs_are_met_or_not() -> None:
    clear = runs([0.9, 0.91, 0.9], [0.5, 0.51, 0.52])

    def fared(table: pd.DataFrame, expected: int | None, margin: float | None = None) -> str:
        contrast = dataclasses.replace(CONTRAST, expected=expected, margin=margin, source="Z 2019")
        found = compare(table, contrast)
        assert found is not None
        if expected is not None:
            assert sentence(found).endswith(f"(Z 2019): {expectation(found)}.")
        return expectation(found)

    assert fared(clear, None) == ""
    assert fared(clear, 1) == "met"
    assert fared(clear, -1) == "not met"
    assert fared(runs([0.9, 0.5, 0.7], [0.5, 0.9, 0.7]), 1) == "not distinguishable"
    assert fared(clear, 0, margin=0.1) == "not met"
    near = runs([0.9, 0.901, 0.9], [0.9, 0.9, 0.901])
    assert fared(near, 0, margin=0.1) == "met"
    assert fared(near, 0, margin=0.0001) == "not distinguishable"
    assert fared(runs([1.0] * 3, [1.0] * 3), 0, margin=0.1) == "met"

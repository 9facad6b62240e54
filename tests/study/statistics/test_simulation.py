"""The promises of the statistics over 1,000 studies in which no arm differs."""

from __future__ import annotations

import pytest

from cnnjax.study.statistics.simulation import LEAST_FOR_BCA, NOISES, STUDIES, coverage, simulate

# Three standard errors of a share of 5 % over the studies.
ERROR = 3 * (0.05 * 0.95 / STUDIES) ** 0.5


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_null_studies(noise: str, seeds: int) -> None:
    row = simulate((seeds,), noise=noise).iloc[0]
    assert row["familywise"] <= 0.05 + ERROR
    assert abs(row["per_test"] - 0.05) <= 0.015
    assert row["any_uncorrected"] > 0.15  # the simulation can see what Holm takes away
    if seeds >= 5:
        assert 0.93 <= row["coverage"] <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_coverage_of_other_intervals(seeds: int) -> None:
    assert 0.93 <= coverage("images", seeds) <= 0.97
    if seeds >= LEAST_FOR_BCA:
        assert 0.93 <= coverage("bca", seeds) <= 0.97


def test_a_small_one() -> None:
    row = simulate((3,), studies=20).iloc[0]
    assert 0 <= row["familywise"] <= row["any_uncorrected"] <= 1

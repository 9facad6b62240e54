"""Single comparisons: against scipy, R's published figures and each other; degenerate samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnnjax.study.statistics.paired import Paired, equivalence, examine, hedges, interval, p_value

# Student's sleep data (1908): the extra hours of ten patients under two drugs; R's t.test gives
# t = -4.0621, p = 0.002833, 95 % interval -2.4598858 to -0.7001142.
DRUG_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
DRUG_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])

SAMPLES = st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=12).map(np.array)


def test_published_paired_test() -> None:
    found = examine(DRUG_1 - DRUG_2)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.n, found.mean) == (10, pytest.approx(-1.58))
    # d_z = -1.2846, times 1 - 3 / (4 * 9 - 1), the usual approximation of the correction
    assert found.effect == pytest.approx(-1.2846 * (1 - 3 / 35), rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(SAMPLES)
def test_the_test_and_the_interval_agree(values: np.ndarray) -> None:
    found = examine(values)
    if math.isfinite(found.low):
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    else:
        assert found.p > 0.05
    mirrored = examine(-values)
    assert (mirrored.mean, mirrored.low, mirrored.p) == (-found.mean, -found.high, found.p)


@settings(deadline=None, max_examples=60)
@given(SAMPLES, st.floats(0.01, 2))
def test_equivalence_is_a_90_percent_interval_inside_the_margin(
    values: np.ndarray, margin: float
) -> None:
    if np.ptp(values) < 1e-6:
        return
    inside = stats.ttest_1samp(values, 0).confidence_interval(0.90)
    gap = min(margin - inside.high, inside.low + margin)
    if abs(gap) > 1e-9:
        assert (equivalence(values, margin) < 0.05) == (gap > 0)


def test_hedges_correction_takes_the_bias_away() -> None:
    draws = np.random.default_rng(0).normal(1.0, 1.0, (20_000, 5))
    assert np.mean([hedges(row) for row in draws]) == pytest.approx(1.0, abs=0.02)
    plain = np.mean(draws.mean(axis=1) / draws.std(axis=1, ddof=1))
    assert plain > 1.2


def test_no_values() -> None:
    assert examine(np.array([])).n == 0
    assert all(math.isnan(v) for v in vars(examine(np.array([]))).values() if v != 0)


def test_one_value_says_nothing() -> None:
    found = examine(np.array([0.5]), margin=1.0)
    assert (found.mean, found.low, found.high) == (0.5, -math.inf, math.inf)
    assert all(map(math.isnan, (found.sd, found.p, found.effect, found.p_equivalent)))


@pytest.mark.parametrize(("n", "p"), [(3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_equal_differences_are_tested_by_their_signs(n: int, p: float) -> None:
    # 0.9 - 0.8 and 0.8 - 0.7 differ in their last bits: no spread all the same
    values = np.resize(np.array([0.9 - 0.8, 0.8 - 0.7]), n)
    found = examine(values, margin=0.2)
    assert (found.p, found.p_equivalent) == (pytest.approx(p), pytest.approx(p / 2))
    assert math.isinf(found.low) == (p > 0.05)
    assert math.isnan(found.effect)
    assert equivalence(values, 0.05) == 1.0


def test_two_values_have_an_interval_and_no_test() -> None:
    found = examine(np.array([0.5, 0.51]), margin=1.0)
    assert (found.low, found.high) == pytest.approx((0.505 - 0.0635310, 0.505 + 0.0635310))
    assert math.isnan(found.p) and math.isnan(found.p_equivalent)


def test_all_zero() -> None:
    assert examine(np.zeros(4), margin=0.1) == Paired(4, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1 / 16)


def test_bca_moves_towards_the_long_tail_and_comes_back_the_same() -> None:
    values = np.random.default_rng(3).exponential(1.0, 20)
    low, high = interval(values, method="bca")
    straight = interval(values)
    assert low > straight[0] and high > straight[1]
    assert interval(values, method="bca") == (low, high)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"method: 'bca' needs at least 8 seeds, got 3; use 't'"):
        interval(np.array([1.0, 2.0, 4.0]), method="bca")
    with pytest.raises(ValueError, match=r"method: expected one of t, bca, got 'percentile'"):
        interval(DRUG_1, method="percentile")
    with pytest.raises(ValueError, match=r"margin: expected a number > 0, got -0.1"):
        equivalence(DRUG_1, -0.1)


def test_coverage_at_three_seeds() -> None:
    draws = np.random.default_rng(0).normal(0.0, 1.0, (4000, 3))
    covered = np.mean([low <= 0 <= high for low, high in map(interval, draws)])
    assert abs(covered - 0.95) < 0.012  # 3.5 standard errors
    assert np.mean([p_value(row) < 0.05 for row in draws]) == pytest.approx(1 - covered)

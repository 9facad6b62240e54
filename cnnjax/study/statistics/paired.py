"""What n paired differences say: mean, interval, test, effect size, equivalence.

    found = examine(values, margin=0.01)       # values (n,), one a seed
    found.mean, found.low, found.high, found.p, found.effect, found.p_equivalent

Degenerate cases: n = 0 is all NaN. n = 1 has a mean and an infinite interval, n = 2 an interval
(of Student's t with one degree of freedom); neither is tested, so that nobody wins by two runs.
Equal differences (no spread to estimate; likely at small n, where accuracies are multiples of
1 / images) are tested by their signs alone, which no five seeds make significant; all zero: p = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special, stats
from statsmodels.stats.weightstats import DescrStatsW

LEVEL = 0.95
METHODS = ("t", "bca")
LEAST_TO_TEST = 3
# Fewer values have too few distinct resamples to reach out far enough (docs/statistics.md).
LEAST_FOR_BCA = 8
RESAMPLES = 9999


@dataclass(frozen=True)
class Paired:
    """Mean, spread and 95 % interval of n differences; p of "no difference", two-sided.

    effect: mean over standard deviation with Hedges' correction, NaN below n = 3.
    p_equivalent: of the two one-sided tests against the margin, NaN without a margin.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    p: float
    effect: float
    p_equivalent: float = math.nan


def examine(values: np.ndarray, *, margin: float | None = None, method: str = "t") -> Paired:
    """Return what `values` (n,), finite, say.

    method: "t" or "bca", the interval's; the test is the paired t test either way. ValueError for
    a margin <= 0 and for fewer than 8 values with "bca".
    """
    values = np.asarray(values, float)
    n = len(values)
    if n == 0:
        return Paired(0, *[math.nan] * 6)
    low, high = interval(values, method=method)
    return Paired(
        n=n,
        mean=_mean(values),
        sd=float(values.std(ddof=1)) if n > 1 else math.nan,
        low=low,
        high=high,
        p=p_value(values),
        effect=hedges(values),
        p_equivalent=math.nan if margin is None else equivalence(values, margin),
    )


def interval(values: np.ndarray, *, method: str = "t") -> tuple[float, float]:
    """Return the interval of the mean of `values` (n,) at LEVEL, infinite for n = 1.

    "t" is Student's; "bca" the bias-corrected accelerated bootstrap (Efron 1987) at the level that
    makes up for small n (Hesterberg 2015, the expanded interval), for n >= 8 only.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    n = len(values)
    if n == 1:
        return -math.inf, math.inf
    if no_spread(values):
        mean = _mean(values)
        known = mean == 0 or p_value(values) <= 1 - LEVEL
        return (mean, mean) if known else (-math.inf, math.inf)
    if method == "bca":
        return _bca(values)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(values.mean() - half), float(values.mean() + half)


def _bca(values: np.ndarray) -> tuple[float, float]:
    n = len(values)
    if n < LEAST_FOR_BCA:
        raise ValueError(f"method: 'bca' needs at least {LEAST_FOR_BCA} seeds, got {n}; use 't'")
    reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * math.sqrt(n / (n - 1))
    found = stats.bootstrap(
        (values,),
        np.mean,
        method="BCa",
        confidence_level=2 * stats.norm.cdf(reach) - 1,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),  # the same data give the same interval
    ).confidence_interval
    return float(found.low), float(found.high)


def p_value(values: np.ndarray) -> float:
    """Return p of the paired t test of mean zero; NaN for n < 3, the sign test without spread."""
    n = len(values)
    if n < LEAST_TO_TEST:
        return math.nan
    if no_spread(values):
        return 1.0 if _mean(values) == 0 else float(stats.binomtest(n, n).pvalue)
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def equivalence(values: np.ndarray, margin: float) -> float:
    """Return p of the two one-sided tests (Schuirmann 1987): small where |mean| is below margin."""
    if not margin > 0:
        raise ValueError(f"margin: expected a number > 0, got {margin!r}")
    n = len(values)
    if n < LEAST_TO_TEST:
        return math.nan
    if no_spread(values):
        return 0.5**n if abs(_mean(values)) < margin else 1.0
    return float(DescrStatsW(values).ttost_mean(-margin, margin)[0])


def hedges(values: np.ndarray) -> float:
    """Return the standardised mean difference d_z without its small-sample bias (Hedges 1981).

    The correction is exact: gamma functions. NaN below n = 3, where none exists, and where there
    is no spread to measure by, unless the mean is zero too.
    """
    n = len(values)
    if n < 3:
        return math.nan
    if no_spread(values):
        return 0.0 if _mean(values) == 0 else math.nan
    half = (n - 1) / 2
    correction = math.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / math.sqrt(half)
    return float(correction * values.mean() / values.std(ddof=1))


def no_spread(values: np.ndarray) -> bool:
    """Return whether the values are equal up to the rounding of subtracting two figures."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _mean(values: np.ndarray) -> float:
    mean = float(values.mean())
    return 0.0 if no_spread(values) and abs(mean) <= 1e-12 else mean

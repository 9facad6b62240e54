"""Power: how many seeds a wanted difference takes, before a study and after it.

    seeds_needed(0.01, sd=0.008)               # before: sd of a paired difference, assumed
    power(table, wanted=0.01)                  # after: from each comparison's observed spread

What counts is the difference that would matter, never the one observed: power computed from the
observed difference says no more than its p value (Hoenig and Heisey 2001).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.power import TTestPower

from cnnjax.study.statistics.family import ALPHA

POWER = 0.8
# The spread seen is below this quantile's bound in 80 % of studies (Browne 1995).
SD_CONFIDENCE = 0.8
MOST_SEEDS = 1_000_000


def seeds_needed(
    wanted: float, sd: float, *, power: float = POWER, alpha: float = ALPHA, comparisons: int = 1
) -> int:
    """Return the fewest seeds with which the paired t test finds a difference `wanted`.

    sd: of a paired difference, in the same unit. comparisons: size of the family; alpha is shared
    out evenly, which is what Holm's first step does. ValueError where no million seeds suffice.
    """
    if not (wanted > 0 and sd >= 0 and comparisons >= 1 and 0 < power < 1 and 0 < alpha < 1):
        raise ValueError(
            "wanted: expected wanted > 0, sd >= 0, comparisons >= 1 and power and alpha between 0 "
            f"and 1, got {wanted!r}, {sd!r}, {comparisons!r}, {power!r} and {alpha!r}"
        )
    if sd == 0:
        return 2
    low, high = 1, 2
    while achieved(wanted, sd, high, alpha / comparisons) < power:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            raise ValueError(f"wanted: {wanted} needs more than {MOST_SEEDS} seeds at sd {sd}")
    while high - low > 1:
        middle = (low + high) // 2
        enough = achieved(wanted, sd, middle, alpha / comparisons) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def achieved(wanted: float, sd: float, seeds: int, alpha: float = ALPHA) -> float:
    """Return the power of the two-sided paired t test with this many seeds."""
    return float(TTestPower().power(wanted / sd, seeds, alpha))


def smallest(sd: float, seeds: int, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """Return the least difference that this many seeds find with this power."""
    effect = TTestPower().solve_power(nobs=seeds, alpha=alpha, power=power)
    return float(np.ravel(effect)[0]) * sd  # statsmodels gives an array where it had to search


def power(table: pd.DataFrame, wanted: float, *, comparisons: int | None = None) -> pd.DataFrame:
    """Return a row for each comparison of `family`'s table: what its seeds could find.

    comparisons: size of the family, default all of the table that have a p. Columns: sd and sd_high
    (observed, and its upper bound at 80 %: with few seeds the first is often far too low), power
    (with the seeds there are, for `wanted`), smallest (difference found with power 80 %),
    seeds_needed and seeds_needed_safe (with sd_high), infinite where no million suffices. NaN where
    n < 2 or there is no spread.
    """
    size = comparisons or max(1, int(table["p"].notna().sum()))
    rows = [
        {k: row[k] for k in ("metric", "arm_a", "arm_b", "n", "sd")} | _plan(row, wanted, size)
        for row in table.to_dict("records")
    ]
    columns = ["metric", "arm_a", "arm_b", "n", "sd", *_plan({"n": 0}, wanted, size)]
    return pd.DataFrame(rows, columns=columns)


def _plan(row: Mapping[Any, Any], wanted: float, size: int) -> dict[str, Any]:
    names = ("sd_high", "power", "smallest", "seeds_needed", "seeds_needed_safe")
    n = row["n"]
    if n < 2 or row["sd"] <= 1e-12:
        return {"wanted": wanted, "comparisons": size} | dict.fromkeys(names, math.nan)
    sd, alpha = row["sd"], ALPHA / size
    high = sd * math.sqrt((n - 1) / stats.chi2.ppf(1 - SD_CONFIDENCE, n - 1))
    found = (
        high,
        achieved(wanted, sd, n, alpha),
        smallest(sd, n, alpha=alpha),
        *(_seeds(wanted, s, size) for s in (sd, high)),
    )
    return {"wanted": wanted, "comparisons": size} | dict(zip(names, found, strict=True))


def _seeds(wanted: float, sd: float, size: int) -> float:
    enough = achieved(wanted, sd, MOST_SEEDS, ALPHA / size) >= POWER
    return seeds_needed(wanted, sd, comparisons=size) if enough else math.inf

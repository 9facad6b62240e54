"""Differences between arms, paired over seeds, with an interval that holds at small n.

    difference = compare(runs, Contrast("accuracy_away", {"pool": "aps"}, {"pool": "max"}))
    difference.mean, difference.low, difference.high, difference.n

Within a seed the arms share initial values and batches, so their differences are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cnnjax.study.grid import Contrast

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """Mean of n paired differences with its t interval at LEVEL; infinite for n = 1."""

    contrast: Contrast
    mean: float
    low: float
    high: float
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves zero out, 0 where it does not."""
        return int(self.low > 0) - int(self.high < 0)


def compare(runs: pd.DataFrame, contrast: Contrast) -> Difference | None:
    """Return the paired difference of a contrast; None where no seed has both arms.

    Cells of one seed (other axes of the grid) are averaged first: the seed is the unit.
    """
    done = select(runs[runs["status"] == "done"], contrast.where)
    means = [
        select(done, arm).groupby("seed")[contrast.metric].mean()
        for arm in (contrast.arm, contrast.against)
    ]
    values = (means[0] - means[1]).dropna().to_numpy(float)
    if not len(values):
        return None
    low, high = interval(values)
    return Difference(contrast, float(values.mean()), low, high, len(values))


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the t interval of the mean of `values` (n,), infinite for n = 1.

    Equal values give an interval of no width: the t interval's limit.
    """
    n = len(values)
    if n == 1:
        return -np.inf, np.inf
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(values.mean() - half), float(values.mean() + half)


def select(runs: pd.DataFrame, choices: Mapping[str, Any]) -> pd.DataFrame:
    """Return the runs whose columns have these values."""
    for name, value in choices.items():
        runs = runs[runs[name] == value]
    return runs


def default_contrast(runs: pd.DataFrame, by: Sequence[str]) -> Contrast | None:
    """Return second against first value of the first axis, in shift consistency."""
    values = list(runs[by[0]].unique())
    if len(values) < 2:
        return None
    return Contrast("consistency", {by[0]: values[1]}, {by[0]: values[0]})


def sentence(difference: Difference | None) -> str:
    """Say a difference and its interval in one sentence, without naming a winner it has not."""
    if difference is None:
        return "The grid holds no pair of arms to compare."
    contrast = difference.contrast
    arm, against = (_words(c) for c in (contrast.arm, contrast.against))
    where = f" at {_words(contrast.where)}" if contrast.where else ""
    if difference.n == 1:
        return (
            f"{arm} minus {against} in {contrast.metric}{where}: {difference.mean:+.3f} on the one "
            "seed run; one seed gives no interval, so the arms are not distinguishable."
        )
    verdict = {1: "higher", -1: "lower", 0: "not distinguishable"}[difference.sign]
    return (
        f"{arm} against {against}{where}: {verdict} in {contrast.metric}, difference "
        f"{difference.mean:+.3f}, 95 % interval [{difference.low:+.3f}, {difference.high:+.3f}], "
        f"paired over n = {difference.n} seeds."
    )


def _words(choices: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in choices.items())

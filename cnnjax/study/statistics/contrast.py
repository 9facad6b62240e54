"""The one difference a study is about: stated before it ran, so nothing is corrected for.

difference = compare(runs, Contrast("accuracy_away", {"pool": "aps"}, {"pool": "max"}))
difference.mean, difference.low, difference.high, difference.n
sentence(difference)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnnjax.config import FIELDS
from cnnjax.study.grid import Contrast, Study
from cnnjax.study.results import independent, label
from cnnjax.study.statistics.paired import LEAST_TO_TEST, LEVEL, Paired, examine

MET, NOT_MET, UNDECIDED = "met", "not met", "not distinguishable"


def check_arms(study: Study) -> None:
    """Raise ValueError where a study's grid has not both arms of its contrast."""
    if study.contrast is None:
        return
    for part in ("arm", "against", "where"):
        for name, value in getattr(study.contrast, part).items():
            there = study.axes.get(name, (getattr(study.base, name),))
            if label(value) not in map(label, there):
                known = ", ".join(str(label(value)) for value in there)
                raise ValueError(
                    f"contrast: {part} {name}={label(value)} is not in the grid: {known}"
                )


@dataclass(frozen=True)
class Difference:
    """A contrast and what its paired differences say; `dropped` seeds lack one of the arms."""

    contrast: Contrast
    paired: Paired
    dropped: int = 0

    @property
    def mean(self) -> float:
        return self.paired.mean

    @property
    def low(self) -> float:
        return self.paired.low

    @property
    def high(self) -> float:
        return self.paired.high

    @property
    def n(self) -> int:
        return self.paired.n

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves zero out, 0 where it does not and below 3 seeds."""
        if self.n < LEAST_TO_TEST:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def compare(runs: pd.DataFrame, contrast: Contrast, *, method: str = "t") -> Difference | None:
    """Return the paired difference of a contrast; None where no seed has both arms.

    Other axes of the grid: cells are paired one by one, then averaged within the seed, which is the
    unit. A cell without its twin (failed, not a number, not in the grid) is left out.
    """
    kept = select(runs, contrast.where)
    sides = [select(kept, choices) for choices in (contrast.arm, contrast.against)]
    cell = ["seed", *_inner_axes(sides, contrast)]
    values = [
        finite(side, contrast.metric).groupby(cell, dropna=False)[contrast.metric].mean()
        for side in sides
    ]
    paired = (values[0] - values[1]).dropna()
    if paired.empty:
        return None
    by_seed = paired.groupby("seed").mean()
    seeds = {seed for side in sides for seed in side["seed"]}
    found = examine(by_seed.to_numpy(float), margin=contrast.margin, method=method)
    return Difference(contrast, found, dropped=len(seeds) - found.n)


def _inner_axes(sides: Sequence[pd.DataFrame], contrast: Contrast) -> list[str]:
    """Return the fields, contrast and seed aside, that vary by themselves within both arms."""
    aside = {"seed", *contrast.arm, *contrast.against, *contrast.where}
    fields = [name for name in FIELDS if name not in aside and name in sides[0]]
    varying = [independent(side, fields) for side in sides]
    return [name for name in varying[0] if name in varying[1]]


def finite(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the finished runs, the metric NaN where it is no finite number."""
    done = runs[runs["status"] == "done"]
    return done.assign(**{metric: done[metric].astype(float).replace([np.inf, -np.inf], np.nan)})


def select(runs: pd.DataFrame, choices: Mapping[str, Any]) -> pd.DataFrame:
    """Return the runs whose columns have these values."""
    for name, value in choices.items():
        runs = runs[runs[name] == label(value)]
    return runs


def expectation(difference: Difference) -> str:
    """Return how the expected sign fared: met, not met, not distinguishable; "" if none is stated.

    An expected difference of zero is met where the two are equivalent within the margin or equal in
    every run, and not met where they differ and are not equivalent.
    """
    expected, sign = difference.contrast.expected, difference.sign
    if expected is None:
        return ""
    if expected == 0:
        found = difference.paired
        alike = found.p_equivalent < 1 - LEVEL or found.low == found.high == 0
        return MET if alike else (NOT_MET if sign else UNDECIDED)
    return {expected: MET, 0: UNDECIDED}.get(sign, NOT_MET)


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
    arm, against = (words(c) for c in (contrast.arm, contrast.against))
    where = f" at {words(contrast.where)}" if contrast.where else ""
    if difference.n == 1:
        return (
            f"{arm} minus {against} in {contrast.metric}{where}: {difference.mean:+.3f} on the one "
            "seed run; one seed gives no interval, so the arms are not distinguishable."
        )
    verdict = {1: "higher", -1: "lower", 0: UNDECIDED}[difference.sign]
    left_out = f" ({difference.dropped} left out)" if difference.dropped else ""
    return (
        f"{arm} against {against}{where}: {verdict} in {contrast.metric}, difference "
        f"{difference.mean:+.3f}, {100 * LEVEL:.0f} % interval [{difference.low:+.3f}, "
        f"{difference.high:+.3f}], paired over n = {difference.n} seeds{left_out}."
        f"{_expected(difference)}"
    )


def _expected(difference: Difference) -> str:
    contrast, fared = difference.contrast, expectation(difference)
    if not fared:
        return ""
    source = f" ({contrast.source})" if contrast.source else ""
    sign = {1: "higher", -1: "lower", 0: f"within ±{contrast.margin}"}[contrast.expected or 0]
    return f" Expected {sign}{source}: {fared}."


def words(choices: Mapping[str, Any]) -> str:
    """Return choices as text: `pool aps, stride 3`."""
    return ", ".join(f"{name} {label(value)}" for name, value in choices.items())

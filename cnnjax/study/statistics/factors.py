"""Which axis decides a metric: the arms' variance shared out among the factors of a full grid.

    table = factors(runs, ["padding", "head", "pool"], "consistency")
    table[["effect", "share", "low", "high", "F", "p_holm"]]
    factors(runs, ["pool", ("window", "stride")], "accuracy")  # zipped axes: one factor

In a full grid the variance between the arms of one seed is a sum over main effects and
interactions, so shares add up to one, and each seed gives one share of every effect. A seed's
shares hold its runs' noise too, which favours effects of many levels: the F test, whose yardstick
is how an effect varies over seeds, says which of them are more than that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.anova import AnovaRM

from cnnjax.study.results import label
from cnnjax.study.statistics.contrast import finite
from cnnjax.study.statistics.family import adjusted
from cnnjax.study.statistics.paired import LEAST_TO_TEST, examine, no_spread

COLUMNS = ("metric", "effect", "df", "n", "share", "low", "high", "F", "p", "p_holm")
Factor = str | tuple[str, ...]


def factors(runs: pd.DataFrame, by: Sequence[Factor], metric: str) -> pd.DataFrame:
    """Return a row an effect: each factor of `by`, then their interactions, `a:b`.

    share: of the variance between the arms of a seed, mean over the n seeds that have all arms;
    low and high: its 95 % interval (Student's t over seeds), of no width where all agree. F and p:
    repeated-measures analysis of variance, seeds as subjects, which takes sphericity for granted
    where an effect has more than one degree of freedom; p_holm: over all effects. NaN where nothing
    varies, p also below three seeds. ValueError where the grid is not full: every combination of
    levels, once a seed.
    """
    named = runs.assign(**{name(factor): _levels(runs, factor) for factor in by})
    names = [name(factor) for factor in by]
    table = _full(finite(named, metric), names, metric)
    shape = [table.columns.get_level_values(own).nunique() for own in names]
    values = table.to_numpy(float).reshape(len(table), *shape)
    effects = [pick for size in range(1, len(by) + 1) for pick in _picks(len(by), size)]
    squares = np.array([_mean_square(values, effect) for effect in effects])
    total = squares.sum(axis=0)
    varies = not any(no_spread(seed) for seed in table.to_numpy(float))
    tests = _tests(table, names) if varies else {}
    rows = []
    for effect, own in zip(effects, squares, strict=True):
        words = ":".join(names[axis] for axis in effect)
        shares = own / total if varies else np.full(len(table), math.nan)
        f, p = tests.get(words, (math.nan, math.nan))
        df = math.prod(shape[axis] - 1 for axis in effect)
        rows.append((metric, words, df, len(table), *_interval(shares), f, p, p))
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    return found.assign(p_holm=adjusted(found["p"], "holm"))


def name(factor: Factor) -> str:
    """Return a factor in words: zipped axes as `window x stride`."""
    return factor if isinstance(factor, str) else " x ".join(factor)


def _levels(runs: pd.DataFrame, factor: Factor) -> pd.Series:
    if isinstance(factor, str):
        return runs[factor].map(str)
    return runs[list(factor)].apply(lambda row: ", ".join(str(label(v)) for v in row), axis=1)


def _full(runs: pd.DataFrame, names: list[str], metric: str) -> pd.DataFrame:
    """Return the metric with a row a seed and a column an arm, seeds that lack an arm left out."""
    if runs.duplicated([*names, "seed"]).any():
        raise ValueError(f"by: {', '.join(names)} does not tell the runs of one seed apart")
    table = runs.pivot(index="seed", columns=names, values=metric)
    if len(names) == 1:
        table.columns = pd.MultiIndex.from_arrays([table.columns], names=names)
    table = table[sorted(table.columns)].dropna()
    levels = [table.columns.get_level_values(own).unique() for own in names]
    if len(table.columns) != math.prod(map(len, levels)) or table.empty:
        raise ValueError(
            f"by: {', '.join(names)} is no full grid: expected every combination of their levels "
            "in at least one seed"
        )
    return table


def _picks(count: int, size: int) -> Iterator[tuple[int, ...]]:
    yield from itertools.combinations(range(count), size)


def _mean_square(values: np.ndarray, effect: tuple[int, ...]) -> np.ndarray:
    """Return each seed's mean square (S,) of one effect in values (S, levels, levels, ...)."""
    for axis in range(values.ndim - 1):
        mean = values.mean(axis=1 + axis, keepdims=True)
        values = values - mean if axis in effect else mean
    return np.asarray((values**2).mean(axis=tuple(range(1, values.ndim))))


def _interval(shares: np.ndarray) -> tuple[float, float, float]:
    found = examine(shares)
    if no_spread(shares):
        return found.mean, found.mean, found.mean
    return found.mean, max(found.low, 0.0), min(found.high, 1.0)


def _tests(table: pd.DataFrame, names: list[str]) -> dict[str, tuple[float, float]]:
    if len(table) < LEAST_TO_TEST:
        return {}
    # Formulas take plain names alone.
    plain = {own: f"factor{number}" for number, own in enumerate(names)}
    long = table.melt(ignore_index=False, value_name="value").reset_index().rename(columns=plain)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = AnovaRM(long, "value", "seed", within=list(plain.values())).fit().anova_table
    words = {short: own for own, short in plain.items()}
    effects = [":".join(words[part] for part in str(row).split(":")) for row in found.index]
    return dict(zip(effects, zip(found["F Value"], found["Pr > F"], strict=True), strict=True))

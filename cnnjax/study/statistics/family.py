"""All comparisons of a study as one family: paired differences, corrected together, one row each.

    table = family(runs, by=["pool", "stride"])          # arms that differ in one axis
    table = family(runs, by, pairs={"pool": "max"})      # each arm against one
    table = family(runs, by, pairs="all", margins={"accuracy": 0.01})
    sentences(table)

Holm's and Benjamini and Hochberg's corrections run over every row of the table that has a p: ask
for fewer metrics or pairs, before looking, and each of them has more power.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from statsmodels.stats.multitest import multipletests

from cnnjax import spec
from cnnjax.study.results import HEADLINES, UNSET, distinct, label
from cnnjax.study.statistics.contrast import UNDECIDED, finite, words
from cnnjax.study.statistics.paired import LEAST_TO_TEST, LEVEL, Paired, examine

ALPHA = round(1 - LEVEL, 10)
COLUMNS = (
    *("metric", "arm_a", "arm_b", "n", "difference", "low", "high", "p", "p_holm", "p_bh"),
    *("effect", "sd", "margin", "p_equivalent", "p_equivalent_holm", "equivalent"),
    *("verdict", "note"),
)
EQUAL = "equal in every run"

Arm = tuple[Any, ...]
Pairs = str | Mapping[str, Any]


def family(
    runs: pd.DataFrame,
    by: Sequence[str],
    *,
    metrics: Sequence[str] = tuple(HEADLINES),
    pairs: Pairs = "one_axis",
    margins: Mapping[str, float] | None = None,
    method: str = "t",
) -> pd.DataFrame:
    """Return a row a metric and pair of arms: `difference` is arm_a minus arm_b over n seeds.

    by: the columns that tell arms apart. pairs: "one_axis" (arms that differ in one of them), "all"
    or {"pool": "max"} (each arm against the one that has these values and is like it otherwise).
    margins: metric -> the difference that would not matter, for `equivalent`. Verdicts follow
    p_holm: "higher", "lower" (arm_a), "equivalent", "equal in every run" or "not distinguishable".
    Runs that failed and figures that are not finite leave their seed out, and `note` counts them.
    An arm that is the same function as another one of the table is not compared twice.
    ValueError where `by` does not tell runs of one seed apart.
    """
    margins = margins or {}
    rows = []
    for metric in metrics:
        values = by_seed(distinct(runs), by, metric)
        for a, b in pair_up(list(values), by, pairs):
            paired = values[a] - values[b]
            found = examine(paired.dropna().to_numpy(), margin=margins.get(metric), method=method)
            rows.append(
                {"metric": metric, "arm_a": name(by, a), "arm_b": name(by, b)}
                | facts(found)
                | {"margin": margins.get(metric, math.nan), "note": _note(found, len(paired))}
            )
    return correct(pd.DataFrame(rows, columns=list(COLUMNS)))


def by_seed(runs: pd.DataFrame, by: Sequence[str], metric: str) -> dict[Arm, pd.Series]:
    """Return each arm's metric, indexed by seed, NaN for a run that failed or is not finite."""
    if metric not in runs:
        raise ValueError(f"metric: {spec.suggest(metric, runs.columns)}, got {metric!r}")
    found = {}
    for arm, group in arm_by_arm(runs, by):
        if group["seed"].duplicated().any():
            columns = ", ".join(by)
            raise ValueError(f"by: {columns} does not tell the runs of {name(by, arm)} apart")
        values = finite(group, metric).set_index("seed")[metric]
        found[arm] = values.reindex(group["seed"])
    return found


def arm_by_arm(runs: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[Arm, pd.DataFrame]]:
    """Yield (arm, its runs) in the order of the table; a field that is None reads "default"."""
    for key, group in runs.groupby(list(by), sort=False, dropna=False):
        parts: Any = key
        yield tuple(UNSET if pd.isna(part) else part for part in parts), group


def pair_up(arms: Sequence[Arm], by: Sequence[str], pairs: Pairs) -> Iterator[tuple[Arm, Arm]]:
    """Yield (arm, the arm it is compared with); of two equals the later one comes first."""
    if isinstance(pairs, Mapping):
        yield from _against(arms, by, pairs)
        return
    if pairs not in ("one_axis", "all"):
        raise ValueError(f"pairs: expected one_axis, all or a mapping of axes, got {pairs!r}")
    for b, a in itertools.combinations(arms, 2):
        if pairs == "all" or sum(x != y for x, y in zip(a, b, strict=True)) == 1:
            yield a, b


def _against(
    arms: Sequence[Arm], by: Sequence[str], choices: Mapping[str, Any]
) -> Iterator[tuple[Arm, Arm]]:
    for axis in choices:
        spec.find(dict.fromkeys(by), axis, "pairs")
    for a in arms:
        there = (label(choices.get(axis, own)) for axis, own in zip(by, a, strict=True))
        b = tuple(there)
        if b in arms and a != b:
            yield a, b


def correct(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with corrected p values and verdicts over all its rows; rows may be fewer
    or more than `family` gave, as where two of its tables are one family."""
    table = table.copy()
    for source, target, method in (
        ("p", "p_holm", "holm"),
        ("p", "p_bh", "fdr_bh"),
        ("p_equivalent", "p_equivalent_holm", "holm"),
    ):
        table[target] = adjusted(table[source], method)
    table["equivalent"] = table["p_equivalent_holm"] < ALPHA
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def adjusted(p: pd.Series, method: str) -> pd.Series:
    """Return the corrected p values; a comparison without a p is no member of the family."""
    values = p.astype(float)
    tested = values.notna()
    if tested.any():
        values[tested] = multipletests(values[tested], method=method)[1]
    return values


def _verdict(row: Mapping[Any, Any]) -> str:
    if row["n"] >= LEAST_TO_TEST and row["low"] == row["high"] == 0:
        return EQUAL
    if row["p_holm"] < ALPHA:
        return "higher" if row["difference"] > 0 else "lower"
    return "equivalent" if row["equivalent"] else UNDECIDED


def facts(found: Paired) -> dict[str, Any]:
    """Return what was found, by column."""
    values = dataclasses.asdict(found)
    return {"difference": values.pop("mean"), **values}


def _note(found: Paired, possible: int) -> str:
    notes = []
    if found.n == 0:
        notes.append("no seed has both arms")
    elif found.n == 1:
        notes.append("one seed: no interval, no test")
    elif found.n < LEAST_TO_TEST:
        notes.append("two seeds: too few to test")
    elif math.isnan(found.effect) and found.n > 2:
        notes.append("equal differences: tested by their signs alone")
    if 0 < found.n < possible:
        left_out = f"{possible - found.n} of {possible} seeds left out"
        notes.append(f"{left_out}: failed, missing or no finite number in one arm")
    return "; ".join(notes)


def sentences(table: pd.DataFrame) -> list[str]:
    """Return one sentence a row, which names a winner only where the corrected test has one."""
    tests = int(table["p"].notna().sum())
    return [_sentence(row, tests) for row in table.to_dict("records")]


def _sentence(row: Mapping[Any, Any], tests: int) -> str:
    pair = f"{row['arm_a']} against {row['arm_b']}: "
    if row["n"] == 0:
        return f"{pair}not compared in {row['metric']}: no seed has both arms."
    if row["n"] == 1:
        return (
            f"{pair}{UNDECIDED} in {row['metric']}, difference {row['difference']:+.4f} on the one "
            "seed that has both; one seed gives no interval."
        )
    within = f" within ±{row['margin']:g}" if row["verdict"] == "equivalent" else ""
    note = f" ({row['note']})" if row["note"] else ""
    tested = f"p = {row['p']:.3g} ({row['p_holm']:.3g} after Holm over {tests} comparisons)"
    return (
        f"{pair}{row['verdict']}{within} in {row['metric']}, difference {row['difference']:+.4f}, "
        f"{100 * LEVEL:.0f} % interval [{row['low']:+.4f}, {row['high']:+.4f}], "
        f"{'' if math.isnan(row['p']) else f'{tested}, '}n = {row['n']} seeds{note}."
    )


def name(by: Sequence[str], arm: Arm) -> str:
    """Return an arm in words: `pool aps, stride 3`."""
    return words(dict(zip(by, arm, strict=True)))

"""Arms in order of a metric, each with the ranks that the data do not rule out.

table = ranking(runs, by=["pool", "stride"], metric="accuracy")
table[["rank", "rank_low", "rank_high", "arm", "mean", "low", "high", "n"]]
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cnnjax.study.results import distinct
from cnnjax.study.statistics.family import by_seed, family, name
from cnnjax.study.statistics.paired import examine


def ranking(
    runs: pd.DataFrame, by: Sequence[str], metric: str, *, lower_is_better: bool = False
) -> pd.DataFrame:
    """Return a row an arm, the best mean first.

    low and high: the t interval of the arm's own mean over seeds. rank_low to rank_high: ranks that
    at 95 % hold for all arms at once (Mogstad, Romano, Shaikh and Wilhelm 2024): an arm is surely
    behind those that the paired tests of all pairs, after Holm, find better. Arms whose ranks
    overlap are not distinguishable. Arms without a finished run come last, with every rank open.
    """
    table = family(runs, by, metrics=(metric,), pairs="all")
    ahead = _ahead(table, lower_is_better)
    rows = []
    for arm, values in by_seed(distinct(runs), by, metric).items():
        own, found = name(by, arm), examine(values.dropna().to_numpy())
        row = {"arm": own, "n": found.n, "mean": found.mean, "low": found.low, "high": found.high}
        behind = sum(worse == own for _, worse in ahead)
        before = sum(better == own for better, _ in ahead)
        rows.append(row | {"rank_low": 1 + behind, "rank_high": -before})
    ranked = pd.DataFrame(rows).sort_values(
        "mean", ascending=lower_is_better, na_position="last", ignore_index=True
    )
    ranked["rank_high"] += len(ranked)
    ranked.insert(0, "rank", range(1, len(ranked) + 1))
    return ranked


def _ahead(table: pd.DataFrame, lower_is_better: bool) -> list[tuple[str, str]]:
    """Return (better, worse) for every pair that the corrected tests tell apart."""
    wins = "lower" if lower_is_better else "higher"
    pairs = []
    for a, b, verdict in zip(table["arm_a"], table["arm_b"], table["verdict"], strict=True):
        if verdict in ("higher", "lower"):
            pairs.append((a, b) if verdict == wins else (b, a))
    return pairs

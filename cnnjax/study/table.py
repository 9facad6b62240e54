"""The table at the end of a study, on the terminal: mean +- std over seeds, and n.

print_table(runs, by=["pool", "stride"], console=Console())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from cnnjax.study.results import HEADLINES, summary, words


def cells(
    runs: pd.DataFrame, by: Sequence[str], metrics: Mapping[str, str] = HEADLINES
) -> tuple[list[str], list[list[str]]]:
    """Return (header, rows) as text: the arms, then mean +- std of each metric, then n.

    An arm whose every run failed stands in the table with its reason.
    """
    header = [*by, *metrics.values(), "n"]
    rows = []
    table = summary(runs, by, metrics)
    for key, group in runs.groupby(list(by), sort=False, dropna=False):
        names = [words(part) for part in key]
        place: Any = key if len(key) > 1 else key[0]  # an index of one level has no tuples
        if place in table.index:
            row = table.loc[place]
            values = [spread(row[m]["mean"], row[m]["std"]) for m in metrics]
            n = str(int(row[next(iter(metrics))]["count"]))
            failed = int((group["status"] == "failed").sum())
            rows.append([*names, *values, n + (f" ({failed} failed)" if failed else "")])
        else:
            reason = group["reason"].iloc[0]
            rows.append([*names, f"failed: {reason}", *[""] * (len(metrics) - 1), "0"])
    return header, rows


def spread(mean: float, std: float) -> str:
    """Format mean +- std; a single run has no spread to show."""
    return f"{mean:.3f}" if pd.isna(std) else f"{mean:.3f} ± {std:.3f}"


def print_table(runs: pd.DataFrame, *, by: Sequence[str], console: Console) -> None:
    """Print the table of arms."""
    header, rows = cells(runs, by)
    table = Table(title="mean ± standard deviation over seeds")
    for name in header:
        # Folded, not cut: the ends of long values may be what tells two arms apart.
        table.add_column(name, justify="left" if name in by else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)

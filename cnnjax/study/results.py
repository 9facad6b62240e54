"""Results as tables: result.json files -> pandas frames, runs.csv, runs.parquet, metrics.parquet.

runs = frame(trials, results)              # a row a trial
table = summary(runs, ["pool", "stride"])  # mean, std and n over seeds
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cnnjax.config import FIELDS
from cnnjax.study.finished import Finished
from cnnjax.study.grid import Trial
from cnnjax.study.store import Store, TrialFiles, write_bytes

HEADLINES = {
    "accuracy": "accuracy",
    "accuracy_away": "accuracy away from the centre",
    "consistency": "shift consistency",
}
NOT_TAKEN = "-"
UNSET = "default"


def frame(trials: Sequence[Trial], results: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row a finished trial: id, status, config columns, metrics, seconds.

    A trial that is the same function as another carries that one's numbers and, in `same_as`, its
    id. A field that the trial's method does not take is shown as "-".
    """
    found = ((trial, results.get(trial.owner)) for trial in trials)
    return _tabulated(_row(trial, result) for trial, result in found if result is not None)


def _tabulated(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table, without holding them beside it; what a row lacks is NaN."""
    columns: dict[str, list[Any]] = {}
    for count, row in enumerate(rows):
        for name in row:
            if name not in columns:
                columns[name] = [math.nan] * count
        for name, column in columns.items():
            column.append(row.get(name, math.nan))
    return pd.DataFrame(columns)


def _row(trial: Trial, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": trial.id,
        "same_as": trial.same_as or "",
        "status": result["status"],
        "reason": result.get("reason", ""),
        **_columns(trial),
        **dict.fromkeys(HEADLINES, math.nan),
        **result.get("metrics", {}),
        "variables_sha256": result.get("variables_sha256", ""),
        "data_sha256": result.get("data_sha256", ""),
        "seconds_training": result.get("seconds_training"),
        "seconds_battery": result.get("seconds_battery"),
        "seconds": result.get("seconds"),
    }


def _columns(trial: Trial) -> dict[str, Any]:
    values = {name: label(getattr(trial.config, name)) for name in FIELDS}
    if not trial.config.takes_window:
        values["window"] = NOT_TAKEN
    return values


def distinct(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs without those that only repeat another one of them."""
    return runs[~runs["same_as"].isin(runs["id"])] if "same_as" in runs else runs


def label(value: Any) -> Any:
    """Return a value as a table shows it: (3, 2) as 3x2."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


def words(value: Any) -> str:
    """Return a value as text; None, in a table perhaps NaN, as flags have it: `default`."""
    return UNSET if value is None or value != value else str(label(value))


def summary(
    runs: pd.DataFrame, by: Sequence[str], metrics: Iterable[str] = HEADLINES
) -> pd.DataFrame:
    """Return mean, std (n - 1) and n of the metrics over the finished runs of each arm."""
    done = runs[runs["status"] == "done"]
    groups = done.groupby(list(by), sort=False, dropna=False)[list(metrics)]
    return groups.agg(["mean", "std", "count"])


def arms(runs: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return the axes that tell arms apart: those with several values, the seed aside."""
    return independent(runs, [axis for axis in axes if axis != "seed"]) or ["pool"]


def independent(runs: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Return the axes with several values that those before them do not decide already.

    One of two axes that are zipped is enough, and widths matched to a pool go with the pool.
    """
    kept: list[str] = []
    for axis in axes:
        values = [runs[axis]] if not kept else (v for _, v in _by(runs, kept)[axis])
        if any(v.nunique(dropna=False) > 1 for v in values):
            kept.append(axis)
    return kept


def _by(runs: pd.DataFrame, axes: Sequence[str]) -> Any:
    return runs.groupby(list(axes), sort=False, dropna=False)


def epochs(trials: Iterable[TrialFiles]) -> pd.DataFrame:
    """Return the long form of metrics.jsonl: trial id, epoch, name, value."""
    columns: dict[str, list[Any]] = {"id": [], "epoch": [], "name": [], "value": []}
    for files in trials:
        for line in files.metrics():
            epoch = line.pop("epoch", None)
            columns["id"] += [files.root.name] * len(line)
            columns["epoch"] += [epoch] * len(line)
            columns["name"] += map(sys.intern, line)
            columns["value"] += line.values()
    return pd.DataFrame(columns)


def write_tables(
    store: Store, trials: Sequence[Trial], finished: Finished | None = None
) -> pd.DataFrame:
    """Write runs.csv, runs.parquet and metrics.parquet; return the runs."""
    owners = dict.fromkeys(trial.owner for trial in trials)
    if finished is None:
        finished = Finished(store)
        finished.read(owners)
    runs = frame(trials, finished)
    write_bytes(store.root / "runs.csv", runs.to_csv(index=False).encode())
    _write_parquet(store.root / "runs.parquet", runs)
    _write_parquet(store.root / "metrics.parquet", epochs(map(store.trial, owners)))
    return runs


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    columns = {name: storable(column) for name, column in table.items()}
    pd.DataFrame(columns).to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())


def storable(column: pd.Series) -> pd.Series:
    """Return a column as Parquet holds it, where all values of a column are of one kind.

    Numbers stay numbers: "-" and None beside them are null. Beside a pair such as 3x2 or a word,
    numbers are text.
    """
    if column.dtype != object:
        return column
    known = column.where(column.notna() & (column != NOT_TAKEN), None)
    kind = known.infer_objects().convert_dtypes()
    return kind if kind.dtype != object else known.map(str, na_action="ignore").astype("string")

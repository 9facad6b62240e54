"""Results as tables: result.json files -> pandas frames, runs.csv, runs.parquet, metrics.parquet.

runs = frame(trials, results)              # a row a trial
table = summary(runs, ["pool", "stride"])  # mean, std and n over seeds
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cnnjax.config import FIELDS, Config, from_dict
from cnnjax.study.grid import Trial
from cnnjax.study.store import Store, write_bytes

HEADLINES = {
    "accuracy": "accuracy",
    "accuracy_away": "accuracy away from the centre",
    "consistency": "shift consistency",
}
NOT_TAKEN = "-"


def frame(trials: Sequence[Trial], results: Mapping[str, Any]) -> pd.DataFrame:
    """Return a row a finished trial: id, status, config columns, metrics, seconds.

    A trial that is the same function as another carries that one's numbers and, in `same_as`, its
    id. A field that the trial's method does not take is shown as "-".
    """
    rows = []
    for trial in trials:
        result = results.get(trial.same_as or trial.id)
        if result is not None:
            rows.append(_row(trial, result))
    return pd.DataFrame(rows)


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
        "seconds": result.get("seconds"),
    }


def _columns(trial: Trial) -> dict[str, Any]:
    values = {name: label(getattr(trial.config, name)) for name in FIELDS}
    if not trial.config.takes_window:
        values["window"] = NOT_TAKEN
    return values


def label(value: Any) -> Any:
    """Return a value as a table shows it: (3, 2) as 3x2."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


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


def epochs(store: Store, trials: Sequence[Trial]) -> pd.DataFrame:
    """Return the long form: trial id, epoch, name, value."""
    rows = []
    for name in dict.fromkeys(trial.same_as or trial.id for trial in trials):
        for line in store.trial(name).metrics():
            values = {k: v for k, v in line.items() if k != "epoch"}
            rows += [
                {"id": name, "epoch": line.get("epoch"), "name": k, "value": v}
                for k, v in values.items()
            ]
    return pd.DataFrame(rows, columns=["id", "epoch", "name", "value"])


def write_tables(store: Store, trials: Sequence[Trial]) -> pd.DataFrame:
    """Write runs.csv, runs.parquet and metrics.parquet; return the runs."""
    runs = frame(trials, store.results({t.same_as or t.id for t in trials}))
    write_bytes(store.root / "runs.csv", runs.to_csv(index=False).encode())
    _write_parquet(store.root / "runs.parquet", runs)
    _write_parquet(store.root / "metrics.parquet", epochs(store, trials))
    return runs


def load(out: str | Path) -> pd.DataFrame:
    """Return the runs of every finished trial in a study directory, whichever grid made it."""
    store = Store(out)
    results = store.results(path.name for path in sorted(store.root.glob("trials/*")))
    trials = [Trial(_config(store, name, result)) for name, result in results.items()]
    return frame(trials, results)


def _config(store: Store, name: str, result: Mapping[str, Any]) -> Config:
    try:
        return from_dict(result["config"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{store.root}: trials/{name} is of another version of cnnjax ({error})"
        ) from None


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    # Columns of mixed kinds (a window 3 or 3x2 or "-") are text in Parquet.
    mixed = {c: str for c in table.columns if table[c].dtype == object}
    table.astype(mixed).to_parquet(buffer, index=False)
    write_bytes(path, buffer.getvalue())

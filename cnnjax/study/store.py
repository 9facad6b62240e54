"""A study directory: study.json and, in trials/<id>/, {config,env,data,result}.json and more.

    store = Store(out)                         # a directory, or gs://, s3://, az://
    with store.lock():
        store.claim(study.describe())          # OSError where the directory belongs to another
        files = store.trial(trial_id)
        files.finish(result)                   # whole or not at all, whatever kills the process
    results = store.results(ids)

result.json is what makes a trial finished: it is written under a temporary name, flushed to disk
and then renamed, so that a kill at any instant leaves either all of it or none.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.config import SCHEMA
from cnnjax.study.files import (
    Journal,
    is_store,
    place,
    read_json,
    read_lines,
    read_object,
    write_bytes,
    write_json,
)
from cnnjax.study.lock import OWNER, hold

__all__ = ["Store", "TrialFiles", "read_json", "read_lines", "write_bytes", "write_json"]

# Raise it when directories of older versions cannot be gone on with.
FORMAT = 1
# What study.json says of the cnnjax that wrote it.
VERSION = {"format": FORMAT, "schema": SCHEMA}


class TrialFiles:
    """The files of one trial; the directory need not exist."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = place(root)
        self._journal = Journal(self.root / "metrics.jsonl")

    def start(
        self, config: Mapping[str, Any], env: Mapping[str, Any], *, goes_on: bool = False
    ) -> None:
        """Open the trial afresh: what an interrupted try left behind is dropped.

        goes_on: the trial has checkpoints and tells its lines again; until then the old ones stay.
        """
        if not is_store(self.root):
            for torn in self.root.glob(".*.tmp"):
                torn.unlink(missing_ok=True)
        write_json(self.root / "config.json", config)
        write_json(self.root / "env.json", env)
        self._journal.start(keep=goes_on)

    def save_data(self, about: Mapping[str, Any]) -> None:
        """Write what the trial learns from: {"sha256", "recipe", "splits"}.

        FileExistsError where an interrupted try of this trial learnt from something else.
        """
        there = self.data()
        if there is not None and there.get("sha256") != about["sha256"]:
            raise FileExistsError(
                f"{self.root}: the data set is not the one this run began with; choose a new "
                "directory"
            )
        write_json(self.root / "data.json", about)

    def data(self) -> dict[str, Any] | None:
        """Return what `save_data` wrote, None where there is nothing."""
        return read_object(self.root / "data.json")

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; OSError where another process began the trial anew."""
        self._journal.append(line)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json: from now on the trial is finished."""
        write_json(self.root / "result.json", result)

    def save_variables(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the trained variables, a flat mapping of slash-separated paths."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(self.root / "variables.npz", buffer.getvalue())

    def save_predictions(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the classes given to the test images, compressed."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(self.root / "predictions.npz", buffer.getvalue())

    def config(self) -> dict[str, Any]:
        """Return the trial's configuration; FileNotFoundError where this is no trial."""
        config = read_object(self.root / "config.json")
        if config is None:
            raise FileNotFoundError(f"{self.root}: no trial here (no readable config.json)")
        return config

    def env(self) -> dict[str, Any]:
        """Return where the trial ran."""
        return read_object(self.root / "env.json") or {}

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return read_lines(self.root / "metrics.jsonl")

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished trial, None for any other.

        FileExistsError where another version wrote it.
        """
        result = read_object(self.root / "result.json")
        if result is None or not _is_whole(result):
            return None
        _check_version(self.root, result, ["schema"])
        return result

    def variables(self) -> dict[str, np.ndarray]:
        """Return what `save_variables` wrote.

        FileNotFoundError where there is nothing, ValueError where it is damaged.
        """
        path = self.root / "variables.npz"
        if not path.exists():
            raise FileNotFoundError(f"{path}: no trained variables here")
        return _read_arrays(path)

    def predictions(self) -> dict[str, np.ndarray] | None:
        """Return what `save_predictions` wrote; None where there is nothing."""
        path = self.root / "predictions.npz"
        if not path.exists():
            return None
        return _read_arrays(path)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a whole .npz file ({error})") from None


class Store:
    """The files of one study."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = place(root)

    def trial(self, trial_id: str) -> TrialFiles:
        """Return the files of a trial."""
        return TrialFiles(self.root / "trials" / trial_id)

    def results(self, trial_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the results of those trials that are finished; `each`, for few of them."""
        return dict(self.each(trial_ids))

    def each(self, trial_ids: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (id, result) of those trials that are finished, one after another."""
        for trial_id in trial_ids:
            result = self.trial(trial_id).result()
            if result is not None and result.get("id", trial_id) == trial_id:
                yield trial_id, result

    def trial_ids(self) -> list[str]:
        """Return the trials that were ever begun here, sorted."""
        root = self.root / "trials"
        return sorted(path.name for path in root.iterdir()) if root.exists() else []

    def is_study(self) -> bool:
        """Return whether a study has claimed the directory."""
        return read_object(self.root / "study.json") is not None

    def claim(self, study: Mapping[str, Any]) -> None:
        """Make the directory this study's; FileExistsError where it holds something else."""
        self.refuse_another(study)
        write_json(self.root / "study.json", {**VERSION, **study})

    def refuse_another(self, study: Mapping[str, Any]) -> None:
        """Raise FileExistsError where the directory holds something else than this study.

        `study["fixed"]` is compared but for what is an axis here or there: a grid may grow.
        """
        path = self.root / "study.json"
        if path.exists():
            there = read_object(path) or {}
            _check_version(self.root, there)
            varied = {*study.get("axes", ()), *(there.get("axes") or ())}
            mine, theirs = (
                {k: v for k, v in (each.get("fixed") or {}).items() if k not in varied}
                for each in (study, there)
            )
            if (there.get("name"), theirs) != (study["name"], mine):
                raise FileExistsError(
                    f"--out={self.root} belongs to another study ({there.get('name', 'unreadable')}"
                    ", or the same with other fixed choices); choose a new directory"
                )
        elif self._holds_something():
            raise FileExistsError(
                f"--out={self.root} is not empty and holds no study; choose a new directory"
            )

    def description(self) -> dict[str, Any]:
        """Return what `claim` wrote.

        FileNotFoundError where this is no study, FileExistsError where another version wrote it.
        """
        study = read_object(self.root / "study.json")
        if study is None:
            raise FileNotFoundError(f"{self.root}: no study here (no readable study.json)")
        _check_version(self.root, study)
        return study

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold the directory for one writer; BlockingIOError where another process has it.

        An object store has no locks: there two studies at once do the same work twice.
        """
        return contextlib.nullcontext() if is_store(self.root) else hold(self.root)

    def _holds_something(self) -> bool:
        ours = (".lock", OWNER)
        return self.root.exists() and any(
            p.name not in ours and not p.name.endswith(".tmp") for p in self.root.iterdir()
        )


def _check_version(root: Path, there: Mapping[str, Any], fields: Iterable[str] = VERSION) -> None:
    for field in fields:
        # A file older than a field has nothing to say of it, and is as the first version left it.
        if there.get(field, VERSION[field]) != VERSION[field]:
            raise FileExistsError(
                f"{root} was written by another version of cnnjax ({field} {there[field]!r}, this "
                f"one writes {VERSION[field]}); go on with that version, or choose a new directory"
            )


def _is_whole(result: Mapping[str, Any]) -> bool:
    """Return whether a result has what the tables need: its status; metrics and places if done."""
    if result.get("status") != "done":
        return result.get("status") == "failed"
    metrics, places = result.get("metrics"), result.get("places") or {}
    return _are_figures(metrics) and (places == {} or _are_places(places))


def _are_figures(metrics: Any) -> bool:
    if not isinstance(metrics, dict):
        return False
    return all(value is None or isinstance(value, (int, float)) for value in metrics.values())


def _are_places(places: Any) -> bool:
    if not isinstance(places, dict):
        return False
    offsets, accuracy = places.get("offsets"), places.get("accuracy")
    if not isinstance(offsets, list) or not isinstance(accuracy, list):
        return False
    return len(offsets) == len(accuracy)

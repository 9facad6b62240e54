"""A study directory: study.json and trials/<id>/{config,env,result}.json, metrics.jsonl, variables.

    store = Store(out)
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
import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np


class TrialFiles:
    """The files of one trial; the directory need not exist."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def start(self, config: Mapping[str, Any], env: Mapping[str, Any]) -> None:
        """Open the trial afresh: what an interrupted try left behind is dropped."""
        write_json(self.root / "config.json", config)
        write_json(self.root / "env.json", env)
        (self.root / "metrics.jsonl").write_text("")

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with open(self.root / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json: from now on the trial is finished."""
        write_json(self.root / "result.json", result)

    def save_variables(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the trained variables, a flat mapping of slash-separated paths."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_bytes(self.root / "variables.npz", buffer.getvalue())

    def config(self) -> dict[str, Any]:
        """Return the trial's configuration; FileNotFoundError where this is no trial."""
        config = read_json(self.root / "config.json")
        if config is None:
            raise FileNotFoundError(f"{self.root}: no trial here (no readable config.json)")
        return config

    def env(self) -> dict[str, Any]:
        """Return where the trial ran."""
        return read_json(self.root / "env.json") or {}

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return read_lines(self.root / "metrics.jsonl")

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished trial, None for any other."""
        return read_json(self.root / "result.json")

    def variables(self) -> dict[str, np.ndarray]:
        """Return what `save_variables` wrote; FileNotFoundError where there is nothing."""
        path = self.root / "variables.npz"
        if not path.exists():
            raise FileNotFoundError(f"{path}: no trained variables here")
        with np.load(path) as arrays:
            return dict(arrays)


class Store:
    """The files of one study."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def trial(self, trial_id: str) -> TrialFiles:
        """Return the files of a trial."""
        return TrialFiles(self.root / "trials" / trial_id)

    def results(self, trial_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the results of those trials that are finished."""
        found = ((trial_id, self.trial(trial_id).result()) for trial_id in trial_ids)
        return {trial_id: result for trial_id, result in found if result is not None}

    def claim(self, study: Mapping[str, Any]) -> None:
        """Make the directory this study's; FileExistsError where it holds something else.

        `study["fixed"]` is compared, the axes are not: a grid may grow.
        """
        path = self.root / "study.json"
        if path.exists():
            there = read_json(path) or {}
            if (there.get("name"), there.get("fixed")) != (study["name"], study["fixed"]):
                raise FileExistsError(
                    f"--out={self.root} belongs to another study ({there.get('name', 'unreadable')}"
                    ", or the same with other fixed choices); choose a new directory"
                )
        elif any(p.name != ".lock" for p in self.root.iterdir()):
            raise FileExistsError(
                f"--out={self.root} is not empty and holds no study; choose a new directory"
            )
        write_json(path, study)

    def description(self) -> dict[str, Any]:
        """Return what `claim` wrote; FileNotFoundError where this is no study."""
        study = read_json(self.root / "study.json")
        if study is None:
            raise FileNotFoundError(f"{self.root}: no study here (no readable study.json)")
        return study

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one writer; BlockingIOError where another process has it."""
        with _open_lock(self.root) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"--out={self.root} is in use by a running command; wait for it or stop it"
                ) from None
            yield


def _open_lock(root: Path) -> TextIO:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return open(root / ".lock", "w")
    except OSError as error:
        raise type(error)(f"--out={root}: cannot be written: {error.strerror}") from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that `path` is either the old file or the whole new one, also after a crash."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Return the JSON value of a file; None where it is missing or not whole."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSONL file; a torn last line (a kill while writing) is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines()
    values = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise ValueError(f"{path}: line {number} is not JSON") from None
    return values

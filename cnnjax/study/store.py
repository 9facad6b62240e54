"""A study directory: trials/<id>/{config.json, env.json, metrics.jsonl, result.json}.

    store = Store(out)
    with store.lock():
        store.claim(study)                     # OSError where the directory belongs to another
        store.finish(trial_id, result)         # whole or not at all, whatever kills the process
    results = store.results(ids)

result.json is what makes a trial finished: it is written under a temporary name, flushed to disk
and then renamed, so that a kill at any instant leaves either all of it or none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Store:
    """The files of one study."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def trial(self, trial_id: str) -> Path:
        """Return the directory of a trial."""
        return self.root / "trials" / trial_id

    def claim(self, study: dict[str, Any]) -> None:
        """Make the directory this study's; OSError where it holds something else.

        `study` names the study and its fixed choices. A grid may grow: axes are not compared.
        """
        path = self.root / "study.json"
        if not path.exists():
            if self.root.exists() and any(p.name != ".lock" for p in self.root.iterdir()):
                raise FileExistsError(
                    f"--out={self.root} is not empty and holds no study; choose a new directory"
                )
            write_json(path, study)
            return
        there = read_json(path)
        if there is None or there.get("fixed") != study["fixed"]:
            name = (there or {}).get("name", "an unreadable study.json")
            raise FileExistsError(
                f"--out={self.root} belongs to another study ({name}, or other fixed choices); "
                "choose a new directory"
            )
        write_json(path, study)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one writer; BlockingIOError where another process has it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"--out={self.root} is in use by a running study; wait for it or stop it"
                ) from None
            yield

    def start(self, trial_id: str, config: dict[str, Any], env: dict[str, Any]) -> Path:
        """Open a trial afresh: what an interrupted try left behind is dropped."""
        directory = self.trial(trial_id)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", config)
        write_json(directory / "env.json", env)
        (directory / "metrics.jsonl").write_text("")
        return directory

    def log(self, trial_id: str, line: dict[str, Any]) -> None:
        """Append one line to the trial's metrics.jsonl."""
        with open(self.trial(trial_id) / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self, trial_id: str, result: dict[str, Any]) -> None:
        """Write result.json: from now on the trial is finished."""
        write_json(self.trial(trial_id) / "result.json", result)

    def result(self, trial_id: str) -> dict[str, Any] | None:
        """Return the result of a finished trial, None for any other."""
        return read_json(self.trial(trial_id) / "result.json")

    def results(self, trial_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the results of those trials that are finished."""
        found = ((trial_id, self.result(trial_id)) for trial_id in trial_ids)
        return {trial_id: result for trial_id, result in found if result is not None}


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
    for number, line in enumerate(lines):
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise ValueError(f"{path}: line {number + 1} is not JSON") from None
    return values

"""`cnnjax study` in a process of its own: a tiny grid, waiting for files, finding workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

GRID = [
    *("--pool=max,aps", "--stride=3", "--seed=0", "--widths=2", "--dense=", "--head=gap"),
    *("--padding=CIRCULAR", "--epochs=2", "--eval_places=3", "--norm=batch", "--dropout=0.1"),
    "--dataset=digits_canvas:side=18:scale=1:train=40:test=20",
]


def changed(words: list[str], *flags: str) -> list[str]:
    """Return the words with these flags in place of those of the same name."""
    names = tuple(flag.partition("=")[0] + "=" for flag in flags)
    return [*(word for word in words if not word.startswith(names)), *flags]


SLOWER = changed(GRID, "--epochs=60", "--seed=0,1")
PROGRAM = (sys.executable, "-m", "cnnjax")
# What an undisturbed run may differ in.
TIMES = ["seconds", "seconds_training", "seconds_battery"]

Command = Callable[..., subprocess.Popen[str]]


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def numbers(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "runs.csv").drop(columns=TIMES)


def wait_for(pattern: str, out: Path) -> None:
    for _ in range(600):
        if list(out.glob(pattern)):
            return
        time.sleep(0.1)
    raise AssertionError(f"no {pattern} in {out}")


def copy(source: Path, target: Path) -> None:
    """Copy a study without its lock and tables."""
    for path in source.glob("trials/*/*"):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    (target / "study.json").write_bytes((source / "study.json").read_bytes())


def planner_of(pid: int) -> int:
    """Return the process that plans for the driver `pid`, the first that it starts."""
    return children(pid)[0]


def workers_of(pid: int) -> list[int]:
    """Return the processes that run trials for the driver `pid`."""
    return children(pid)[1:]


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started, oldest first, resource trackers aside."""
    found: list[tuple[int, int]] = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text().rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat[1]) == pid and b"spawn_main" in words:
            found.append((int(stat[19]), int(path.name)))
    return [child for _, child in sorted(found)]

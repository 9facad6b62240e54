"""Lets these tests and the workers they start import `made_up`, work that needs no JAX."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from cnnjax.study.engines.interface import Job  # noqa: E402

MakeJob = Callable[..., Job]


@pytest.fixture
def job(tmp_path: Path) -> MakeJob:
    """Return a maker of jobs: `job("a", "done")` is done at once, see `made_up.work`.

    `job("a,b", "done")` is one of two trials.
    """

    def make(trial_id: str, *acts: str, threads: int = 1) -> Job:
        config = {"notes": str(tmp_path / "notes"), "acts": list(acts)}
        return Job(dict.fromkeys(trial_id.split(","), config), threads)

    (tmp_path / "notes").mkdir()
    return make


@pytest.fixture
def tries(tmp_path: Path) -> Callable[[str], int]:
    """Return how often a job was begun."""
    return lambda trial_id: len(list((tmp_path / "notes").glob(f"{trial_id}.*.began")))

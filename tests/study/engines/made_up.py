"""Made-up work for engines: what a job does is written in its configuration, one act a try."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnjax.study.engines.interface import Event, Job, Report

WAIT_SECONDS = 60.0


class Unsendable(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def work(job: Job, report: Report) -> list[Event]:
    """Run the trials of the job one by one."""
    return [trial(name, config, report) for name, config in job.trials.items()]


def trial(name: str, config: Mapping[str, Any], report: Report) -> Event:
    """Do the act of this try (the last one where there were more tries) and say what was seen."""
    notes = Path(config["notes"])
    number = len(list(notes.glob(f"{name}.*.began")))
    (notes / f"{name}.{number}.began").write_text(str(os.getpid()))
    act = config["acts"][min(number, len(config["acts"]) - 1)]
    report(Event("epoch", name, {"epoch": 1}))
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "wait":
        deadline = time.monotonic() + WAIT_SECONDS
        while not (notes / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    if act == "child":
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
    if act == "bug":
        raise Unsendable(1, 2)
    if act == "full":
        raise OSError(28, "No space left on device")
    if act == "fail":
        return Event("failed", name, {"status": "failed", "reason": "made up"})
    seen = {
        "pid": os.getpid(),
        "jax": "jax" in sys.modules,
        "threads": os.environ.get("NPROC"),
        "platforms": os.environ.get("JAX_PLATFORMS"),
        "share": os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"),
        "preallocate": os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"),
    }
    (notes / f"{name}.done").write_text("")
    return Event("done", name, seen)

"""Made-up work for engines: what a job does is written in its configuration, one act a try."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from cnnjax.study.engines.interface import Event, Job, Report

WAIT_SECONDS = 60.0


class Unsendable(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def work(job: Job, report: Report) -> Event:
    """Do the act of this try (the last one where there were more tries) and say what was seen."""
    notes = Path(job.config["notes"])
    number = len(list(notes.glob(f"{job.trial_id}.*.began")))
    (notes / f"{job.trial_id}.{number}.began").write_text(str(os.getpid()))
    act = job.config["acts"][min(number, len(job.config["acts"]) - 1)]
    report(Event("epoch", job.trial_id, {"epoch": 1}))
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "wait":
        deadline = time.monotonic() + WAIT_SECONDS
        while not (notes / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    if act == "bug":
        raise Unsendable(1, 2)
    if act == "full":
        raise OSError(28, "No space left on device")
    if act == "fail":
        return Event("failed", job.trial_id, {"status": "failed", "reason": "made up"})
    seen = {
        "pid": os.getpid(),
        "jax": "jax" in sys.modules,
        "threads": os.environ.get("NPROC"),
        "platforms": os.environ.get("JAX_PLATFORMS"),
        "share": os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"),
        "preallocate": os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"),
    }
    (notes / f"{job.trial_id}.done").write_text("")
    return Event("done", job.trial_id, seen)

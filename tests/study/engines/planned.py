"""A driver with a made-up planner: `planned.py PLAN NOTES ACTS` runs one job of these acts."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import made_up

from cnnjax.study.engines import find
from cnnjax.study.engines.interface import Job, Resources

LINGER_SECONDS = 2.0


def main(words: Sequence[str]) -> int:
    """Run the plan and return its status."""
    plan, notes, acts = words
    status = 3
    number = len(list(Path(notes).glob("planner.*")))
    (Path(notes) / f"planner.{number}").write_text(str(os.getpid()))
    job = Job({"a": {"notes": notes, "acts": acts.split(",")}})
    try:
        events: Any = find("local")([job], made_up.work, Resources(workers=1))
        with contextlib.closing(events):
            for event in events:
                print(event.trial_id, event.kind, flush=True)
                if plan == "leave":
                    break
                if plan == "work":
                    time.sleep(made_up.WAIT_SECONDS)
                if plan == "die" or (plan == "die once" and number == 0):
                    os.kill(os.getpid(), signal.SIGKILL)
    except OSError as error:
        print("raised", error.errno)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        status = 130
    if plan == "linger":
        threading.Thread(target=time.sleep, args=[LINGER_SECONDS]).start()
    return status


if __name__ == "__main__":
    from cnnjax.study.engines.driver import drive

    try:
        status = drive(main, sys.argv[1:])
    except ChildProcessError as error:
        print(error)
        status = 4
    print("jax in the driver:", "jax" in sys.modules)
    sys.exit(status)

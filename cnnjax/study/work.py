"""What a worker does with a job, whichever engine gave it: run its trials into the study directory.

ends = run_job(job, report, out="runs/mine")      # [Event("done", trial_id, result), ...]
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from cnnjax.study.engines.interface import Event, Job, Report


def run_job(job: Job, report: Report, *, out: str, again: bool = False) -> list[Event]:
    """Run a trial of the study at `out`, or several together; report when they start, and epochs.

    A trial that has a result is returned as it stands (its worker died after its last file), one
    that failed only where `again` is false.

    OSError where a file cannot be written, or `out` is not the study's directory on this host.
    """
    # Here and not above: JAX is for workers, and reads its environment when it is imported.
    from cnnjax.config import from_dict
    from cnnjax.study.compilation import use_cache
    from cnnjax.study.store import Store
    from cnnjax.study.together import run_together
    from cnnjax.study.trial import run_in
    from cnnjax.train.memory import keep_freed
    from cnnjax.train.watch import OnEpoch

    keep_freed()
    store = Store(out)
    if not store.is_study():
        raise FileNotFoundError(
            f"--out={out}: no study there on {socket.gethostname()}; with several machines it must "
            "be on a file system that all of them share"
        )
    there = store.results(job.trials)
    rows = {k: row for k, row in there.items() if row["status"] == "done" or not again}
    missing = {k: from_dict(dict(v)) for k, v in job.trials.items() if k not in rows}

    def tell(trial_id: str, line: Any) -> None:
        report(Event("epoch", trial_id, line))

    for name in missing:  # one, or several that are trained together
        report(Event("started", name))
    use_cache()
    if len(missing) > 1:
        found = run_together(store, list(missing.values()), tell)
        rows |= dict(zip(missing, found, strict=True))
    else:
        for name, config in missing.items():
            rows[name] = run_in(store.trial(name), config, OnEpoch(partial(tell, name)))
    return [Event(rows[name]["status"], name, rows[name]) for name in job.trials]

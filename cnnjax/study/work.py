"""What a worker does with a job, whichever engine gave it: run the trial into the study directory.

event = run_job(job, report, out="runs/mine")      # Event("done", trial_id, result)
"""

from __future__ import annotations

import socket

from cnnjax.study.engines.interface import Event, Job, Report


def run_job(job: Job, report: Report, *, out: str, again: bool = False) -> Event:
    """Run one trial of the study at `out` and keep its files; report each epoch.

    A trial that has a result is returned as it stands (its worker died after its last file), one
    that failed only where `again` is false.

    OSError where a file cannot be written, or `out` is not the study's directory on this host.
    """
    # Here and not above: JAX is for workers, and reads its environment when it is imported.
    from cnnjax.config import from_dict
    from cnnjax.study.compilation import use_cache
    from cnnjax.study.store import Store
    from cnnjax.study.trial import run_in
    from cnnjax.train.watch import OnEpoch

    store = Store(out)
    if not store.is_study():
        raise FileNotFoundError(
            f"--out={out}: no study there on {socket.gethostname()}; with several machines it must "
            "be on a file system that all of them share"
        )
    files = store.trial(job.trial_id)
    there = files.result()
    if there is not None and (there["status"] == "done" or not again):
        return Event(there["status"], job.trial_id, there)
    use_cache()

    watch = OnEpoch(lambda line: report(Event("epoch", job.trial_id, line)))
    result = run_in(files, from_dict(dict(job.config)), watch)
    return Event(result["status"], job.trial_id, result)

"""What the local engine costs: trials that do nothing but start JAX and write their files.

Beside it, the same trials one after another in this process, where JAX runs already: what is more
is the engine's. Divide by the number of trials for the overhead of one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial

from cnnjax.bench.measure import Candidate, Cell
from cnnjax.config import Config, to_dict
from cnnjax.study.engines.interface import Event, Job, Report, Resources
from cnnjax.study.engines.local import run
from cnnjax.study.store import Store

GROUP = ("trials",)


def cells() -> Iterator[Cell]:
    """Yield a cell for a study of few trials, where starting counts, and for one of many."""
    for trials in (4, 36):
        labels = {"trials": str(trials), "workers": "2"}
        yield Cell(labels, partial(candidates, trials))


def candidates(trials: int) -> Mapping[str, Candidate]:
    """Return the engine and the plain loop over the same empty trials."""
    config = to_dict(Config())

    def jobs(root: str) -> list[Job]:
        return [Job({f"{i:012x}": {"out": root, "config": config}}) for i in range(trials)]

    def engine() -> int:
        with tempfile.TemporaryDirectory() as root:
            return len(list(run(jobs(root), empty_trial, Resources(workers=2))))

    def loop() -> int:
        with tempfile.TemporaryDirectory() as root:
            return len([empty_trial(job, lambda line: None) for job in jobs(root)])

    return {"local": Candidate(engine), "loop": Candidate(loop)}


def empty_trial(job: Job, report: Report) -> list[Event]:
    """Do what every trial does beside training: start JAX, write its files, report one epoch."""
    from cnnjax.environment import describe

    ((trial_id, given),) = job.trials.items()
    files = Store(given["out"]).trial(trial_id)
    files.start(given["config"], describe(threads=1))
    line = {"epoch": 1, "loss": 0.0}
    files.log(line)
    report(Event("epoch", trial_id, line))
    result = {"id": trial_id, "status": "failed", "reason": "nothing to do"}
    files.finish(result)
    return [Event("failed", trial_id, result)]

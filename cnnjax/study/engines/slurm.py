"""The Slurm engine: a trial is a job, submitted by submitit; its local executor serves for trying.

    for event in run(jobs, work, Resources(folder="runs/mine/slurm", options={"time": "120"})):
        print(event.trial_id, event.kind)

The driver may end: jobs that Slurm has go on, and the next driver takes over those still there.
Of a trial it is reported when Slurm says that it runs and how it ends, not its epochs.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnjax.study.engines.interface import (
    Ends,
    Event,
    Job,
    Queue,
    Resources,
    Work,
    attempt,
    environment,
)

POLL_SECONDS = 0.2
RUNNING = "RUNNING"
MINUTES = 60  # of a job, unless --slurm=time=... says otherwise
LOCAL = "local"


@dataclass
class Flight:
    """A job that Slurm has; `started` once it has been told that it runs."""

    job: Job
    handle: Any
    started: bool = False

    def begins(self) -> bool:
        """Return whether it is seen to run for the first time."""
        begins = not self.started and self.handle.state == RUNNING
        self.started = self.started or begins
        return begins


def run(jobs: Sequence[Job], work: Work, resources: Resources) -> Iterator[Event]:
    """Run the jobs as Slurm jobs, each with the CPUs and whole GPUs it asks for.

    At most `resources.workers` are submitted at a time (default: all; one a core with
    address="local"). Closing the generator (or an exception) cancels what is under way. ValueError
    for an unknown option, OSError where there is no Slurm or it takes no job.
    """
    executor = _executor(resources)
    limit = resources.workers or (os.cpu_count() or 1 if _is_local(resources) else len(jobs))
    record = Path(executor.folder) / "jobs.json"
    flights = _take_over(executor, jobs, record)
    taken = {flight.job.name for flight in flights}
    queue = Queue(collections.deque(job for job in jobs if job.name not in taken))
    try:
        while queue.waiting or flights:
            while queue.waiting and len(flights) < limit:
                flights.append(_submit(executor, queue.waiting.popleft(), work, resources))
                _write(record, flights)
            ended = [flight for flight in flights if flight.handle.done()]
            for flight in ended:
                flights.remove(flight)
                yield from _outcome(flight, queue)
            for flight in flights:
                if flight.begins():
                    yield from flight.job.events("started", None)
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for flight in flights:
            with contextlib.suppress(Exception):  # one that cannot be cancelled leaves the others
                flight.handle.cancel(check=False)


def _is_local(resources: Resources) -> bool:
    return resources.address == LOCAL


def _executor(resources: Resources) -> Any:
    if resources.address not in (None, LOCAL):
        raise ValueError(
            f"address: expected none (the Slurm of this machine) or {LOCAL!r} (no Slurm: jobs are "
            f"processes here), got {resources.address!r}"
        )
    if resources.gpus != int(resources.gpus):
        raise ValueError(
            f"gpus: Slurm gives whole GPUs, got {resources.gpus:g}; --engine=ray shares them"
        )
    if resources.folder is None:
        raise ValueError("folder: the Slurm engine needs a directory for its jobs, got none")
    import submitit

    try:
        executor = submitit.AutoExecutor(
            resources.folder, cluster=LOCAL if _is_local(resources) else "slurm"
        )
    except RuntimeError as error:
        raise OSError(f"engine: no Slurm here ({error}); --address=local tries without") from None
    shared = {"name": "cnnjax", "timeout_min": MINUTES, "gpus_per_node": int(resources.gpus)}
    own = {f"slurm_{name}": _typed(text) for name, text in resources.options.items()}
    try:
        executor.update_parameters(**shared)
        executor.update_parameters(**own)
    except (NameError, TypeError, AssertionError) as error:
        text = " ".join(str(error).split())[:300]
        raise ValueError(f"slurm: an option submitit does not know: {text}") from None
    return executor


def _typed(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _submit(executor: Any, job: Job, work: Work, resources: Resources) -> Flight:
    cpus = job.threads if resources.cpus is None else resources.cpus
    executor.update_parameters(cpus_per_task=max(1, round(cpus)))
    try:
        handle = executor.submit(_task, work, job, environment(job, resources.gpus))
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise OSError(f"engine: Slurm did not take trial {job.name}: {text}") from None
    return Flight(job, handle)


def _task(work: Work, job: Job, variables: Mapping[str, str]) -> Ends:
    os.environ.update(variables)  # a job is a fresh process: JAX is not there yet
    return attempt(work, job, _ignore)


def _ignore(event: Event) -> None:
    """Leave an epoch's line to metrics.jsonl: a job has no way to its driver before it ends."""


def _outcome(flight: Flight, queue: Queue) -> Ends:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        ends = flight.handle.result()
    except FailedJobError as error:  # it ended by itself, before the trial began: no retry
        text = [line for line in str(error).splitlines() if line.strip()][-1]
        raise RuntimeError(f"trial {flight.job.name} could not run under Slurm: {text}") from None
    except UncompletedJobError:
        state = flight.handle.state
        return queue.crashed(flight.job, f"its Slurm job {flight.handle.job_id} ended as {state}")
    return queue.ended(ends)


def _take_over(executor: Any, jobs: Sequence[Job], record: Path) -> list[Flight]:
    """Return those of the jobs that an earlier driver submitted and that are not over."""
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        return []
    flights = []
    for job in jobs:
        if job.name in known:
            handle = _job_class(executor)(executor.folder, known[job.name])
            if not handle.done(force_check=True):
                flights.append(Flight(job, handle))
    return flights


def _job_class(executor: Any) -> Any:
    return executor._executor.job_class  # AutoExecutor has no public name for it


def _write(record: Path, flights: Sequence[Flight]) -> None:
    content = json.dumps({flight.job.name: flight.handle.job_id for flight in flights})
    temporary = record.with_suffix(".tmp")
    temporary.write_text(content)
    temporary.replace(record)

"""What an engine is given and what it tells: jobs and resources in, events out.

    queue = Queue(deque(jobs))
    job = queue.waiting.popleft()
    yield from queue.crashed(job, "its worker died")    # tried again, MAX_CRASHES times

One policy for all engines: a worker that dies (killed, out of memory, its node gone) costs its
job one more try, up to MAX_CRASHES. Then a job of several trials is taken apart, and a trial of its
own is lost; the others go on, unless workers die whatever the trial. A trial that raises is
deterministic and is not tried again.
"""

from __future__ import annotations

import collections
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_CRASHES = 2
MAX_LOST_IN_A_ROW = 3
# Variables that workers elsewhere get from the driver: what a node has set, such as another number
# of CPU devices, would change the last bits of results. UNSET is what they are when not set here.
SHARED = ("CNNJAX_", "JAX_", "XLA_")
UNSET = {"JAX_NUM_CPU_DEVICES": "-1", "XLA_FLAGS": ""}


@dataclass(frozen=True)
class Job:
    """What a worker runs at a time: a trial, or several that are trained as one program.

    trials: the configuration of each as plain JSON, by its id. threads: the CPU threads it takes.
    """

    trials: Mapping[str, Mapping[str, Any]]
    threads: int = 1

    @property
    def name(self) -> str:
        """What the job is called: its trials' ids, which no other job of a study has."""
        return ",".join(self.trials)

    def apart(self) -> list[Job]:
        """Return a job for each trial."""
        return [Job({trial_id: config}, self.threads) for trial_id, config in self.trials.items()]

    def events(self, kind: str, body: Any) -> list[Event]:
        """Return the same event for each trial."""
        return [Event(kind, trial_id, body) for trial_id in self.trials]


@dataclass(frozen=True)
class Event:
    """What happened to a trial; `body` is the epoch's line, the result, or the reason.

    started, epoch, done, failed: as the trial goes (started and epoch where the engine hears of
    them). crashed: its worker died, it waits for another try. lost: it took down every worker it
    was given, and has no result. error: not the trial's own failure (a full disk); `body` is the
    exception, which engines raise.
    """

    kind: str
    trial_id: str
    body: Any = None


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a study may use, and where.

    workers: jobs at a time, None for as many as there is room for. cpus, gpus: of one job, in
    whole ones or fractions (cpus: None for the job's threads). address: where a cluster is.
    folder: a directory for the engine's own files. options: an engine's own, such as a partition.
    """

    workers: int | None = None
    cpus: float | None = None
    gpus: float = 0.0
    address: str | None = None
    folder: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


# Work reports starts and epochs as they pass, and returns how each trial of its job ended.
Report = Callable[[Event], None]
Ends = Sequence[Event]
Work = Callable[[Job, Report], Ends]
Engine = Callable[[Sequence[Job], Work, Resources], Iterator[Event]]


@dataclass
class Queue:
    """The jobs still to start, and how often each has taken its worker down."""

    waiting: collections.deque[Job]
    crashes: collections.Counter[str] = field(default_factory=collections.Counter)
    lost_in_a_row: int = 0

    def crashed(self, job: Job, reason: str) -> list[Event]:
        """Queue a job whose worker died once more; after MAX_CRASHES more tries it is lost.

        One of several trials is not lost but taken apart: the memory may do for one of them, or one
        may be to blame. ChildProcessError where several in a row are lost: then it is hardly the
        trials' doing.
        """
        self.crashes[job.name] += 1
        tries = self.crashes[job.name]
        if tries <= MAX_CRASHES or len(job.trials) > 1:
            again = [job] if tries <= MAX_CRASHES else job.apart()
            self.waiting.extendleft(reversed(again))
            return job.events("crashed", reason)
        self.lost_in_a_row += 1
        if self.lost_in_a_row >= MAX_LOST_IN_A_ROW:
            raise ChildProcessError(
                f"workers die whatever the trial: {self.lost_in_a_row} in a row were lost, the last"
                f" is {job.name}: {reason}"
            )
        return job.events("lost", f"{reason}, at each of {tries} tries")

    def ended(self, ends: Ends) -> Ends:
        """Return the last events of a job that ran to its end; raise the body of an error."""
        for event in ends:
            if event.kind == "error":
                raise event.body
        self.lost_in_a_row = 0
        return ends


def attempt(work: Work, job: Job, report: Report) -> Ends:
    """Run a job in this process; an exception becomes error events that can be sent."""
    try:
        return work(job, report)
    except Exception as error:
        return job.events("error", portable(error))


def environment(job: Job, gpus: float) -> dict[str, str]:
    """Return the variables that a worker of a cluster needs before it imports JAX."""
    here = {k: v for k, v in os.environ.items() if k.startswith(SHARED) and k != "JAX_PLATFORMS"}
    variables = {**UNSET, **here, "NPROC": str(job.threads)}
    if gpus == 0:
        variables["JAX_PLATFORMS"] = "cpu"  # a trial that asked for no GPU must not take one
    elif gpus < 1:
        # A scheduler counts fractions but does not enforce them, and JAX takes 75 % of a GPU.
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
    return variables


def portable(error: Exception) -> Exception:
    """Return the error, or where it cannot be sent to another process one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

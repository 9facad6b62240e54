"""The Ray engine: trials are Ray tasks, on an instance of its own or on an existing cluster.

    for event in run(jobs, work, Resources(gpus=0.25, address="auto")):
        print(event.trial_id, event.kind)

Ray places each trial where its CPUs and GPUs are free. The study directory must be one that every
node sees. Of a trial it is reported when it starts and how it ends, not its epochs.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from functools import partial
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

# Ray is given this many trials at a time, or twice what fits where that is more.
LEAST_IN_FLIGHT = 256
KNOCK_SECONDS = 10.0
OBJECT_STORE_BYTES = 100_000_000  # results are a few kB; Ray would take 30 % of the memory


def run(jobs: Sequence[Job], work: Work, resources: Resources) -> Iterator[Event]:
    """Run the jobs as Ray tasks, each with the CPUs and GPUs it asks for.

    Events come as trials start and end. Closing the generator (or an exception) cancels what is
    under way. ValueError where no node is large enough, ConnectionError where no cluster answers.
    """
    if resources.options:
        raise ValueError("slurm: options of --engine=slurm, not of --engine=ray")
    queue = Queue(collections.deque(jobs))
    most = max((job.threads for job in jobs), default=1)
    with _connected(resources, resources.cpus or most) as ray:
        # Crashes are counted by the queue, in every engine. A task streams what it yields.
        task = ray.remote(max_retries=0, num_returns="streaming")(_task)
        limit = _room(ray, resources, resources.cpus or most)
        flying: dict[Any, Job] = {}
        try:
            while queue.waiting or flying:
                while queue.waiting and len(flying) < limit:
                    job = queue.waiting.popleft()
                    flying[_submit(task, work, job, resources)] = job
                (ready, *_), _ = ray.wait(list(flying), num_returns=1)
                job = flying.pop(ready)
                events, over = _news(ray, ready, job, queue)
                if not over:
                    flying[ready] = job
                yield from events
        finally:
            for ready in flying:
                ray.cancel(ready, force=True)


def _task(work: Work, job: Job) -> Iterator[Ends]:
    """Yield that the trials have started, then how they ended."""
    yield job.events("started", None)
    yield attempt(work, job, _ignore)


def _ignore(event: Event) -> None:
    """Leave an epoch's line to metrics.jsonl: work runs through before its task yields again."""


def _submit(task: Any, work: Work, job: Job, resources: Resources) -> Any:
    cpus = job.threads if resources.cpus is None else resources.cpus
    variables = environment(job, resources.gpus)
    options = task.options(
        num_cpus=cpus,
        num_gpus=resources.gpus,
        name=f"trial {job.name}",
        runtime_env={"env_vars": variables},
    )
    return options.remote(work, job)


def _news(ray: Any, ready: Any, job: Job, queue: Queue) -> tuple[Ends, bool]:
    """Return the next events of a job's task, and whether they are its last."""
    deaths = ray.exceptions
    try:
        events = ray.get(next(ready))
    except (
        deaths.WorkerCrashedError,
        deaths.NodeDiedError,
        deaths.OutOfMemoryError,
        deaths.ObjectLostError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        return queue.crashed(job, f"its Ray worker died ({type(error).__name__}: {reason})"), True
    except deaths.LocalRayletDiedError:  # no other try could reach Ray either
        raise ConnectionError("address: the Ray node that this study talks to has died") from None
    except deaths.RayError as error:
        text = str(error).strip().splitlines()[-1]
        raise RuntimeError(f"trial {job.name} could not run under Ray: {text}") from None
    if all(event.kind == "started" for event in events):
        return events, False
    return queue.ended(events), True


@contextlib.contextmanager
def _connected(resources: Resources, cpus: float) -> Iterator[Any]:
    """Hold a connection to the cluster at the address, or an instance of our own."""
    with _own_signals():
        if resources.address is None:
            # Read when Ray is imported: an instance of our own has no users, and calls nobody.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        mine = not ray.is_initialized()
        if mine:
            start: Any = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
            if resources.address is None:
                start = partial(_own_instance, start, resources, cpus)
            else:
                start = partial(start, address=resources.address)
            try:
                _knock(resources.address)
                start()
            except (OSError, RuntimeError, ValueError) as error:
                where = resources.address or "an instance of its own"
                text = " ".join(str(error).split())[:300]
                raise ConnectionError(f"address: Ray at {where} does not answer: {text}") from None
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray itself would wait for minutes."""
    host, mark, port = (address or "").rpartition("://")[2].rpartition(":")
    if mark and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _own_instance(start: Any, resources: Resources, cpus: float) -> None:
    cores = os.cpu_count() or 1
    wanted = cores if resources.workers is None else math.ceil(resources.workers * cpus)
    start(
        address="local",
        num_cpus=max(wanted, math.ceil(cpus)),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
    )


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray puts its own in place when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _room(ray: Any, resources: Resources, cpus: float) -> int:
    """Return how many trials Ray is given at a time; ValueError where not even one fits a node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = sum(
        min(
            math.floor(node.get("CPU", 0) / cpus) if cpus else LEAST_IN_FLIGHT,
            math.floor(node.get("GPU", 0) / resources.gpus) if resources.gpus else LEAST_IN_FLIGHT,
        )
        for node in nodes
    )
    if not fits:
        largest = ", ".join(
            f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes
        )
        raise ValueError(
            f"a trial takes {cpus:g} CPUs and {resources.gpus:g} GPUs; no Ray node has as many "
            f"(nodes: {largest})"
        )
    return resources.workers or max(LEAST_IN_FLIGHT, 2 * fits)

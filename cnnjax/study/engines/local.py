"""The local engine: trials run in worker processes, each limited to its own threads.

    for event in run(jobs, work, Resources(workers=2)):
        print(event.trial_id, event.kind)

A worker serves one trial after another, so that JAX starts once. A worker whose parent dies stops
at once.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cnnjax.study.engines import signals
from cnnjax.study.engines.interface import Event, Job, Queue, Resources, Work, attempt
from cnnjax.train.lifeline import end_with_starter

# A worker is a process with its own JAX: hundreds of MB.
MOST_WORKERS_A_CORE = 16
GOODBYE_SECONDS = 5.0


@dataclass
class Worker:
    """A process and the pipe to it; `job` is what it runs, None while it waits."""

    process: Any
    pipe: multiprocessing.connection.Connection
    threads: int
    job: Job | None = None


def run(jobs: Sequence[Job], work: Work, resources: Resources) -> Iterator[Event]:
    """Run the jobs, `resources.workers` at a time (default: the cores).

    Events come as they happen. Closing the generator (or an exception) stops the workers; what they
    were at is unfinished and runs again the next time. OSError where a result cannot be written.
    """
    workers = _check(resources)
    queue = Queue(collections.deque(jobs))
    pool: list[Worker] = []
    try:
        while queue.waiting or any(worker.job for worker in pool):
            _assign(pool, queue, work, workers)
            pipes = [worker.pipe for worker in pool]
            for pipe in multiprocessing.connection.wait(pipes):
                worker = next(worker for worker in pool if worker.pipe is pipe)
                yield from _receive(worker, pool, queue)
    finally:
        for worker in pool:
            _let_go(worker)  # all of them before the first is waited for
        for worker in pool:
            _stop(worker)


def _check(resources: Resources) -> int:
    if resources.gpus or resources.cpus is not None or resources.address or resources.options:
        raise ValueError(
            "engine: 'local' takes --workers only; --gpus, --cpus, --address and --slurm are for "
            "--engine=ray or slurm"
        )
    cores = os.cpu_count() or 1
    workers = cores if resources.workers is None else resources.workers
    if workers > MOST_WORKERS_A_CORE * cores:
        raise ValueError(
            f"workers: expected at most {MOST_WORKERS_A_CORE} a core, "
            f"{MOST_WORKERS_A_CORE * cores} here, got {workers}"
        )
    return workers


def _assign(pool: list[Worker], queue: Queue, work: Work, workers: int) -> None:
    """Give every idle worker a job; start and retire workers as threads demand."""
    while queue.waiting and sum(worker.job is not None for worker in pool) < workers:
        job = queue.waiting.popleft()
        idle = [worker for worker in pool if worker.job is None]
        fitting = [worker for worker in idle if worker.threads == job.threads]
        # The thread limit holds for a whole process, so another limit needs another worker.
        if not fitting and len(pool) >= workers:
            _stop(idle[0])
            pool.remove(idle[0])
        worker = fitting[0] if fitting else _start(job.threads, work, shared=workers > 1)
        if worker not in pool:
            pool.append(worker)
        worker.job = job
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows up as a closed pipe
            worker.pipe.send(job)


def _start(threads: int, work: Work, *, shared: bool) -> Worker:
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    # No daemon: those may have no processes of their own, and a trial's images may be read by some.
    process = context.Process(target=_serve, args=(far_end, work, threads, shared))
    with signals.held():  # by the worker too: Ctrl-C is not even for one that is still starting
        process.start()
    far_end.close()
    return Worker(process, pipe, threads)


def _receive(worker: Worker, pool: list[Worker], queue: Queue) -> Iterator[Event]:
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):  # closed, or cut off in the middle of an event
        yield from _bury(worker, pool, queue)
        return
    if isinstance(message, Event):
        yield message
        return
    worker.job = None
    yield from queue.ended(message)


def _bury(worker: Worker, pool: list[Worker], queue: Queue) -> Iterator[Event]:
    """Take a dead worker out of the pool and queue its job again."""
    pool.remove(worker)
    _stop(worker)
    if worker.job is not None:
        reason = f"its worker process died (exit code {worker.process.exitcode})"
        yield from queue.crashed(worker.job, reason)


def _let_go(worker: Worker) -> None:
    worker.pipe.close()  # an idle worker ends at that, and tidies up
    if worker.job is not None:
        worker.process.kill()


def _stop(worker: Worker) -> None:
    _let_go(worker)
    worker.process.join(GOODBYE_SECONDS)
    worker.process.kill()
    worker.process.join()


def _serve(pipe: Any, work: Work, threads: int, shared: bool) -> None:
    """Run jobs as they come, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signals.release()
    end_with_starter()  # no trial may run twice after a restart
    os.environ["NPROC"] = str(threads)
    if shared:  # JAX would take 75 % of a GPU for the first worker alone
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job = pipe.recv()
            pipe.send(attempt(work, job, pipe.send))

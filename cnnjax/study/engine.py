"""The local engine: trials run in worker processes, each limited to its own threads.

    for event in run_trials(configs, out, workers=2):
        print(event.trial_id, event.kind)      # "epoch", "done", "failed", "crashed"

A worker starts JAX only once it has its first trial, so the parent never does. A worker that dies
(killed, out of memory) costs its trial one more try, up to MAX_CRASHES; a trial that raises is
deterministic and is not tried again. A worker whose parent dies stops at once.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnjax.config import Config, to_dict, trial_id
from cnnjax.train.lifeline import end_with

MAX_CRASHES = 2


@dataclass(frozen=True)
class Event:
    """What happened to a trial; `body` is the epoch's line, the result, or the reason."""

    kind: str
    trial_id: str
    body: Any = None


@dataclass
class Worker:
    """A process and the pipe to it; `config` is the trial it runs, None while it waits."""

    process: Any
    pipe: multiprocessing.connection.Connection
    threads: int
    config: Config | None = None


@dataclass
class Queue:
    """The trials still to start, and how often each has taken its worker down."""

    waiting: collections.deque[Config]
    crashes: collections.Counter[str] = field(default_factory=collections.Counter)


def run_trials(configs: Sequence[Config], out: str, *, workers: int) -> Iterator[Event]:
    """Run every config as a trial of the study directory `out`, `workers` at a time.

    Events come as they happen. Closing the generator (or an exception) stops the workers; what they
    were at is unfinished and runs again the next time. OSError where a result cannot be written.
    """
    queue = Queue(collections.deque(configs))
    pool: list[Worker] = []
    try:
        while queue.waiting or any(worker.config for worker in pool):
            _assign(pool, queue, out, workers)
            pipes = [worker.pipe for worker in pool]
            for pipe in multiprocessing.connection.wait(pipes):
                worker = next(worker for worker in pool if worker.pipe is pipe)
                yield from _receive(worker, pool, queue)
    finally:
        for worker in pool:
            _stop(worker)


def _assign(pool: list[Worker], queue: Queue, out: str, workers: int) -> None:
    """Give every idle worker a trial; start and retire workers as threads demand."""
    while queue.waiting and sum(worker.config is not None for worker in pool) < workers:
        config = queue.waiting.popleft()
        idle = [worker for worker in pool if worker.config is None]
        fitting = [worker for worker in idle if worker.threads == config.threads]
        # The thread limit holds for a whole process, so another limit needs another worker.
        if not fitting and len(pool) >= workers:
            _stop(idle[0])
            pool.remove(idle[0])
        worker = fitting[0] if fitting else _start(config.threads, out)
        if worker not in pool:
            pool.append(worker)
        worker.config = config
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows up as a closed pipe
            worker.pipe.send(to_dict(config))


def _start(threads: int, out: str) -> Worker:
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    process = context.Process(target=_work, args=(far_end, out, threads, os.getpid()), daemon=True)
    process.start()
    far_end.close()
    return Worker(process, pipe, threads)


def _receive(worker: Worker, pool: list[Worker], queue: Queue) -> Iterator[Event]:
    assert worker.config is not None or not worker.process.is_alive()
    try:
        kind, body = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        yield from _bury(worker, pool, queue)
        return
    assert worker.config is not None
    name = trial_id(worker.config)
    if kind == "error":
        raise body
    if kind != "epoch":
        worker.config = None
    yield Event(kind, name, body)


def _bury(worker: Worker, pool: list[Worker], queue: Queue) -> Iterator[Event]:
    """Take a dead worker out of the pool and queue its trial again, unless it kills each one."""
    pool.remove(worker)
    _stop(worker)
    if worker.config is None:
        return
    name = trial_id(worker.config)
    queue.crashes[name] += 1
    reason = f"its worker process died (exit code {worker.process.exitcode})"
    if queue.crashes[name] > MAX_CRASHES:
        raise ChildProcessError(f"trial {name}: {reason} {queue.crashes[name]} times")
    queue.waiting.appendleft(worker.config)
    yield Event("crashed", name, reason)


def _stop(worker: Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()


def _work(pipe: Any, out: str, threads: int, parent: int) -> None:
    """Run trials as they come, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with(parent)  # no trial may run twice after a restart
    os.environ["NPROC"] = str(threads)
    from cnnjax.config import from_dict
    from cnnjax.study.compilation import use_cache
    from cnnjax.study.store import Store
    from cnnjax.study.trial import run_in
    from cnnjax.train.watch import OnEpoch

    use_cache()
    with contextlib.suppress(EOFError, BrokenPipeError):
        for _ in itertools.count():
            config = from_dict(pipe.recv())
            try:
                files = Store(out).trial(trial_id(config))
                watch = OnEpoch(lambda line: pipe.send(("epoch", line)))
                result = run_in(files, config, watch)
            except OSError as error:
                pipe.send(("error", error))
                return
            pipe.send((result["status"], result))

"""The driver of a study: a process without JAX, which runs the engine; a worker plans and reports.

    status = drive(main, words)         # main(words) -> status runs in a worker, the planner

    for event in ask("cnnjax.study.engines.ray", jobs, work, resources):     # there
        print(event.trial_id, event.kind)

So nothing that JAX brings, its threads and a GPU's memory, is in the process that starts others,
joins Ray or submits jobs. The two take turns: the driver sends an event and waits until the planner
wants the next. A planner that was killed is started again, and goes on from the results on disk.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from cnnjax.study.engines import signals
from cnnjax.study.engines.interface import MAX_CRASHES, Event, Job, Resources, Work, portable
from cnnjax.train.lifeline import end_with_starter

Main = Callable[[Sequence[str]], int]
INTERRUPTED = 130

# What the two say beside orders, events and errors.
NEXT, STOP, OVER = "next", "stop", "over"


@dataclass(frozen=True)
class Order:
    """What the planner wants done: an engine's module, and what it is to run."""

    module: str
    jobs: Sequence[Job]
    work: Work
    resources: Resources

    def events(self) -> Iterator[Event]:
        """Run the engine in this process."""
        return importlib.import_module(self.module).run(self.jobs, self.work, self.resources)


def drive(main: Main, words: Sequence[str]) -> int:
    """Run main(words) in a worker and its engines here; return its exit status.

    SIGINT and SIGTERM stop the engine and interrupt main. ChildProcessError where the worker dies
    again and again.
    """
    for _ in range(1 + MAX_CRASHES):
        status = _drive_once(main, words)
        if status >= 0:
            return status
        reason = f"the planning process died (exit code {status})"
        warnings.warn(f"{reason}; it is started again", stacklevel=2)
    raise ChildProcessError(f"{reason}, at each of {1 + MAX_CRASHES} tries")


def _drive_once(main: Main, words: Sequence[str]) -> int:
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    # No daemon: those may have no processes of their own.
    planner = context.Process(target=_plan, args=(far_end, main, words))
    try:
        with signals.interrupting():
            with signals.held():  # by the planner as well, until it can answer them
                planner.start()
            far_end.close()
            _serve(pipe)
            planner.join()
    except KeyboardInterrupt:
        return _interrupt(planner, pipe)
    return planner.exitcode or 0


def _serve(pipe: Connection) -> None:
    """Run the engines that the planner orders, until it ends."""
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while True:
            with contextlib.closing(pipe.recv().events()) as events:
                while _told(pipe, events):
                    pass


def _told(pipe: Connection, events: Iterator[Event]) -> bool:
    """Send what the engine tells next; return whether the planner wants more."""
    message: Event | Exception | str
    try:
        message = next(events, OVER)
    except Exception as error:  # the planner's to handle, where it asked for the event
        message = portable(error)
    pipe.send(message)
    return isinstance(message, Event) and pipe.recv() == NEXT


def _interrupt(planner: BaseProcess, pipe: Connection) -> int:
    """Interrupt the planner, which may have been told already, and wait until it has ended."""
    if planner.pid is not None:
        os.kill(planner.pid, signal.SIGINT)  # a terminal's Ctrl-C goes to both, `kill` to one
        pipe.close()  # a signal just before the planner reads would be heard only after that
        planner.join()
    status = planner.exitcode
    return INTERRUPTED if status is None or status < 0 else status


# The planner's end of the pipe; None in any other process, which runs engines itself.
_driver: Connection | None = None


def _plan(pipe: Connection, main: Main, words: Sequence[str]) -> None:
    global _driver
    _driver = pipe
    end_with_starter()
    try:
        with signals.interrupting():
            signals.release()
            status = main(words)
            signals.ignore()  # too late to change the status: only to print a traceback
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def is_attached() -> bool:
    """Return whether this process is a planner."""
    return _driver is not None


def ask(module: str, jobs: Sequence[Job], work: Work, resources: Resources) -> Iterator[Event]:
    """Yield the events of an engine that the driver runs; raise what the engine raises there."""
    assert _driver is not None, "only a planner has a driver"
    _driver.send(Order(module, jobs, work, resources))
    try:
        while isinstance(message := _driver.recv(), Event):
            yield message
            _driver.send(NEXT)
    except GeneratorExit:
        with contextlib.suppress(BrokenPipeError):  # the driver was interrupted too
            _driver.send(STOP)
        raise
    if isinstance(message, Exception):
        raise message

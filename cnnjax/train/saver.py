"""When a training saves where it stands, and how it is asked to stop.

saver = Saver(checkpoints, every=100, stop=asked.is_set)
variables = train(config, net, dataset, saver=saver)
with saver.until_asked():        # what follows the training
    ...
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

from cnnjax.train import processes
from cnnjax.train.checkpoints import Checkpoints
from cnnjax.train.progress import Progress
from cnnjax.train.step import TrainState

Stop = Callable[[], bool]

LOOK_SECONDS = 0.5  # between two looks whether to break off what follows a training


class Stopped(Exception):
    """Training was asked to stop and has saved where it stands; the same call goes on."""


class Saver:
    """Saves every `every` steps, and a last time where `stop()` turns true.

    In several processes it is SIGTERM to any of them that asks all to stop, after the same step.
    `seconds_before` are those of the training that earlier runs have done, set as it goes on.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None = None,
        every: int | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.checkpoints, self._every, self._stop = checkpoints, every, stop
        self.seconds_before = 0.0
        self._end: tuple[TrainState, Progress] | None = None

    def between(self, state: TrainState, progress: Progress) -> None:
        """Save if it is time, between two steps; Stopped where it is asked to stop."""
        if self._asked(progress.step):
            self._save_and_stop(state, progress)
        if self.checkpoints and self._every and progress.step % self._every == 0:
            self._save(self.checkpoints, state, progress)

    def ended(self, state: TrainState, progress: Progress) -> None:
        """Remember the end of the training, which is saved only if `until_asked` breaks off."""
        if self._may_be_asked():
            self._end = state, progress

    @contextlib.contextmanager
    def until_asked(self) -> Iterator[None]:
        """Break off what follows the training where it is asked to stop, save, raise Stopped."""
        if self._end is None:
            yield
            return
        state, progress = self._end
        steps = itertools.count(progress.step + 1)
        try:
            with breaking_off(lambda: self._asked(next(steps))):
                yield
        except BrokenOff:
            self._save_and_stop(state, progress)

    def _may_be_asked(self) -> bool:
        return self._stop is not None or jax.process_count() > 1

    def _asked(self, step: int) -> bool:
        if jax.process_count() > 1:
            return processes.asked_to_stop(step)
        return self._stop is not None and self._stop()

    def _save_and_stop(self, state: TrainState, progress: Progress) -> NoReturn:
        told = f"stopped after step {progress.step}"
        if self.checkpoints is None:
            raise Stopped(f"{told}, nothing is kept without --out")
        self._save(self.checkpoints, state, progress)
        self.checkpoints.wait()
        raise Stopped(f"{told}, saved in {self.checkpoints.root}")

    def _save(self, checkpoints: Checkpoints, state: TrainState, progress: Progress) -> None:
        progress.look(state.params)
        checkpoints.save(state, progress)


class BrokenOff(BaseException):
    """What is at work has been asked to stop; no `except Exception` holds it up."""


@contextlib.contextmanager
def breaking_off(asked: Stop) -> Iterator[None]:
    """Raise BrokenOff inside the block soon after `asked()` turned true; in the main thread only.

    It comes the way of Ctrl-C, so that what holds Ctrl-C up holds it up too.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return
    over, found = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if (found.is_set() or asked()) and not over.is_set():
                found.set()
                # Again and again: what is raised inside a destructor or a callback is lost.
                signal.pthread_kill(main.ident or 0, signal.SIGINT)

    def interrupt(signum: int, frame: Any) -> None:
        if found.is_set():
            raise BrokenOff
        if callable(before):  # not where the shell has Ctrl-C ignored
            before(signum, frame)

    watcher = threading.Thread(target=watch, name="until asked to stop", daemon=True)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
    finally:
        over.set()  # if the line above was interrupted
        signal.signal(signal.SIGINT, before)

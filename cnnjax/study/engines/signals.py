"""Ctrl-C and SIGTERM while processes start and stop: held back, taken once, let through.

    with interrupting():       # either raises KeyboardInterrupt, once: what follows is tidied up
        with held():           # neither reaches this process, nor one that is started here
            process.start()

A process that was started so holds them until it calls `release`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first of ENDINGS; any that follows is ignored.

    After an interrupt the handlers stay as they are, for then the process is about to end, be the
    interrupt caught within the block or not.
    """
    before = {number: signal.signal(number, _interrupt) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, handler)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Keep ENDINGS waiting until the end of the block, in which processes may be started."""
    resource_tracker.ensure_running()  # with the first process, which lets ENDINGS through
    with _blocked():
        yield


def release() -> None:
    """Let through what was held when this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def ignore() -> None:
    """Ignore ENDINGS from now on, for this process is about to end."""
    with _blocked():  # one that Python has in hand is heard before
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(signum: int, frame: FrameType | None) -> Any:
    # The first stops the study, which takes a moment; another must not break that off. SIG_IGN
    # would not do: Python complains of a signal it has in hand that is no longer handled.
    for number in ENDINGS:
        signal.signal(number, _pass)
    raise KeyboardInterrupt


def _pass(signum: int, frame: FrameType | None) -> Any:
    """Hear a signal and do nothing."""

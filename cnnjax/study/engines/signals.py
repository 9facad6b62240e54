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
    """Keep ENDINGS waiting until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release() -> None:
    """Let through what was held when this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def ignore() -> None:
    """Let none of ENDINGS break off what remains to be done."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(signum: int, frame: FrameType | None) -> Any:
    ignore()  # the first stops the study, which takes a moment
    raise KeyboardInterrupt

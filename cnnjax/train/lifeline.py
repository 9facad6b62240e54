"""A process that never outlives the one that started it; imports nothing heavy.

end_with(os.getppid())
end_with_starter()             # where multiprocessing started this one
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable

CHECK_SECONDS = 0.5


def end_with(parent: int) -> None:
    """End this process, as kill -9 would, soon after `parent` is no longer its parent.

    So nothing goes on training, and writing, beside the run that is started in its place.
    """

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)

    _end_after(wait)


def end_with_starter() -> None:
    """End this process, as kill -9 would, as soon as the one that started it is gone.

    For processes of multiprocessing, where the system tells at once, also of a starter that was
    gone before this process ran.
    """
    starter = multiprocessing.parent_process()
    assert starter is not None, "expected a process that multiprocessing started"
    _end_after(starter.join)


def _end_after(wait: Callable[[], None]) -> None:
    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()

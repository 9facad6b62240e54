"""Watching a run: whoever wants to know of its start, its epochs and its end is a Callback.

    class Bell(Callback):
        def end(self, result):
            print("\\a", result["status"])

    run_in(files, config, Several([OnEpoch(print), Bell(), *trackers(["wandb"], out)]))

The trackers of other people (see `trackers`) are callbacks like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Callback:
    """What is told of a run; this one does nothing with it."""

    def start(self, run: Mapping[str, Any]) -> None:
        """The run {id, schema, config} begins, or goes on."""

    def epoch(self, line: Mapping[str, Any]) -> None:
        """An epoch is over: {epoch, step, loss, accuracy, images, seconds}.

        A run that goes on tells the lines of its finished epochs again, before any new one.
        """

    def end(self, result: Mapping[str, Any]) -> None:
        """The run is over: what `start` was told, and its status.

        "done" comes with metrics, "failed" with a reason; "stopped" will go on another time.
        """


NOBODY = Callback()


@dataclass(frozen=True)
class OnEpoch(Callback):
    """Calls a function with each epoch's line."""

    report: Callable[[Mapping[str, Any]], object]

    def epoch(self, line: Mapping[str, Any]) -> None:
        self.report(line)


@dataclass(frozen=True)
class Several(Callback):
    """Tells each of several callbacks, in their order."""

    callbacks: Sequence[Callback]

    def start(self, run: Mapping[str, Any]) -> None:
        for callback in self.callbacks:
            callback.start(run)

    def epoch(self, line: Mapping[str, Any]) -> None:
        for callback in self.callbacks:
            callback.epoch(line)

    def end(self, result: Mapping[str, Any]) -> None:
        for callback in self.callbacks:
            callback.end(result)

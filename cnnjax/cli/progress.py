"""What a study shows while it runs: a bar with the time left on a terminal, plain lines elsewhere.

    with Progress(study, out) as progress:
        run_study(study, out, on_plan=progress.plan, on_event=progress.event)

Ctrl-C and SIGTERM leave with a line that says how to go on.
"""

from __future__ import annotations

import collections
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cnnjax import build
from cnnjax.config import Config, trial_id
from cnnjax.study.engines.interface import Event
from cnnjax.study.grid import Study
from cnnjax.study.results import label
from cnnjax.study.run import Plan
from cnnjax.study.selection import relative_cost


class Progress:
    """Counts trials; the bar's length is their estimated cost, so the time left is honest."""

    def __init__(self, study: Study, out: str) -> None:
        self.study, self.out = study, out
        self.console = Console(stderr=True)
        self.total = self.finished = 0
        self.costs: dict[str, float] = {}
        self.shown: dict[str, float] = collections.defaultdict(float)
        self.epochs: dict[str, int] = {}
        self.labels: dict[str, str] = {}
        self.bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._before = {s: signal.signal(s, _interrupt) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        if isinstance(error, KeyboardInterrupt):
            # The process is about to end: its handlers stay, so that one more Ctrl-C is harmless.
            raise KeyboardInterrupt(
                f"{self.finished} of {self.total} trials are done and kept in {self.out}; "
                "the same command goes on from there"
            ) from None
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def plan(self, plan: Plan) -> None:
        """Take note of what is to do."""
        self.total = len(plan.distinct)
        self.finished = self.total - len(plan.missing)
        for config in plan.missing:
            self.labels[trial_id(config)] = describe(config, self.study)
            self.costs[trial_id(config)] = relative_cost(config)
            self.epochs[trial_id(config)] = build.epochs(config)
        if self.finished:
            self.console.print(f"{self.finished} of {self.total} trials are done already")
        if not self.console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        left = TextColumn("left"), TimeRemainingColumn()
        self.bar = Bar(*columns, *left, console=self.console)
        work = sum(relative_cost(config) for config in plan.missing)
        self.task = self.bar.add_task(self._counter(), total=work)
        self.bar.start()

    def event(self, event: Event) -> None:
        """Show one event of the engine."""
        name = self.labels.get(event.trial_id, event.trial_id)
        if event.kind == "epoch":
            share = event.body["epoch"] / self.epochs[event.trial_id]
            self._advance(event.trial_id, share)
            return
        self._advance(event.trial_id, 0.0 if event.kind == "crashed" else 1.0)
        if event.kind != "crashed":
            self.finished += 1
        self._say(f"{self._counter()}  {event.kind:7} {name}  {_outcome(event)}")
        if self.bar is not None:
            self.bar.update(self.task, description=self._counter())

    def _advance(self, name: str, share: float) -> None:
        """Show `share` of a trial as done: a crash takes back what was shown of it."""
        step = share * self.costs[name] - self.shown[name]
        self.shown[name] += step
        if self.bar is not None:
            self.bar.advance(self.task, step)

    def _say(self, line: str) -> None:
        console = self.bar.console if self.bar is not None else self.console
        console.print(line, highlight=False, soft_wrap=True, markup=False)
        sys.stderr.flush()

    def _counter(self) -> str:
        return f"{self.finished}/{self.total} trials"


def describe(config: Config, study: Study) -> str:
    """Return what tells a trial from its neighbours: its place on the axes."""
    return " ".join(f"{axis}={label(getattr(config, axis))}" for axis in study.axes)


def _outcome(event: Event) -> str:
    if event.kind == "done":
        metrics = event.body["metrics"]
        numbers = (f"{k}={metrics[k]:.3f}" for k in ("accuracy", "accuracy_away", "consistency"))
        return f"{' '.join(numbers)} ({event.body['seconds']:.0f} s)"
    return str(event.body["reason"] if event.kind == "failed" else event.body)


def _interrupt(signum: int, frame: FrameType | None) -> Any:
    # The first stops the study, which takes a moment; another must not break that off.
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt

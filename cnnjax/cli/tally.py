"""What is known of a study while it runs: trials done, running, failed; time left; best arm so far.

    tally = Tally(study, plan)
    tally.take(event)                      # an engine's Event
    tally.text()        # "5/63 trials, 2 running, 1 failed, 3 min left; best ..."

The time left is what the work done so far took, for the work that remains, each trial weighed by
its estimated cost.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cnnjax import build
from cnnjax.config import Config, trial_id
from cnnjax.study.engines.interface import Event
from cnnjax.study.grid import Study
from cnnjax.study.results import words
from cnnjax.study.run import Plan
from cnnjax.study.selection import relative_cost

LOWER_IS_BETTER = ("loss", "error")


class Best(NamedTuple):
    """An arm, the mean of the study's metric over its finished seeds, and how many those are."""

    arm: str
    value: float
    n: int


class Tally:
    """Counts of a study's trials, kept by `take`; what was finished before counts as done."""

    def __init__(
        self, study: Study, plan: Plan, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.metric = study.contrast.metric if study.contrast else "accuracy"
        self.total = len(plan.distinct)
        self.finished = self.failed = 0
        self.running: set[str] = set()
        self._configs = {trial_id(config): config for config in plan.distinct}
        self._axes = [axis for axis in study.axes if axis != "seed"]
        self._values: dict[str, list[float]] = collections.defaultdict(list)
        for name, result in plan.finished.items():
            self._finish(name, result)
        costs = {trial_id(config): relative_cost(config) for config in plan.missing}
        self._costs, self._shown = costs, dict.fromkeys(costs, 0.0)
        self._clock, self._begin = clock, clock()

    def take(self, event: Event) -> None:
        """Count an event; a crash takes back what was counted of its trial."""
        name = event.trial_id
        if event.kind == "started":
            self.running.add(name)
        elif event.kind == "epoch":
            self.running.add(name)
            share = event.body["epoch"] / build.epochs(self._configs[name])
            self._shown[name] = share * self._costs[name]
        else:
            self.running.discard(name)
            over = event.kind != "crashed"
            self._shown[name] = self._costs[name] if over else 0.0
            if over:
                self._finish(name, event.body)

    def _finish(self, name: str, result: Mapping[str, Any]) -> None:
        self.finished += 1
        if result["status"] != "done":
            self.failed += 1
        elif math.isfinite(value := result["metrics"].get(self.metric, math.nan)):
            self._values[self._arm(self._configs[name])].append(value)

    def _arm(self, config: Config) -> str:
        return describe(config, self._axes)

    @property
    def work(self) -> float:
        """The estimated cost of the trials to run, in units of its own."""
        return sum(self._costs.values())

    @property
    def shown(self) -> float:
        """How much of `work` is done."""
        return sum(self._shown.values())

    def seconds_left(self) -> float | None:
        """Return the estimated seconds until the last trial ends, None while nothing is known."""
        shown = self.shown
        if shown <= 0:
            return None
        return (self._clock() - self._begin) * (self.work - shown) / shown

    def best(self) -> Best | None:
        """Return the best arm so far; of equal ones, that with most seeds."""
        sign = -1 if self.metric.endswith(LOWER_IS_BETTER) else 1
        # A copy: the view is drawn in a thread of its own, while arms are added.
        known = tuple(self._values.items())
        arms = [Best(arm, math.fsum(each) / len(each), len(each)) for arm, each in known if each]
        return max(arms, key=lambda arm: (sign * arm.value, arm.n), default=None)

    def counts(self) -> str:
        """Return how many trials are done, running and failed."""
        return (
            f"{self.finished}/{self.total} trials, {len(self.running)} running, "
            f"{self.failed} failed"
        )

    def left(self) -> str:
        """Return the time left as text."""
        seconds = self.seconds_left()
        return "time left unknown" if seconds is None else f"{_duration(seconds)} left"

    def leader(self) -> str:
        """Return the best arm so far as text, "" before there is one."""
        best = self.best()
        return (
            ""
            if best is None
            else (
                f"best {self.metric} so far {best.value:.3f}: {best.arm or 'the one arm'} "
                f"(n = {best.n})"
            )
        )

    def text(self) -> str:
        """Return all of it on one line."""
        return "; ".join(filter(None, (f"{self.counts()}, {self.left()}", self.leader())))


def describe(config: Config, axes: Any) -> str:
    """Return what tells a trial from its neighbours: its place on the axes."""
    return " ".join(f"{axis}={words(getattr(config, axis))}" for axis in axes)


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"

"""What a study would do and take, before anything runs: trials, compilations, time.

    outlook = forecast(todo, workers=2)
    outlook.compilations, outlook.seconds, outlook.basis
    print(outlook.text())

Time comes from finished trials of the same directory where there are any: those of the same program
(equal up to the seed), else all of them, weighed by the guess of `selection.relative_cost`. Without
one it comes from operations counted in the traced forward pass, at an assumed speed.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cnnjax import build, data
from cnnjax.config import FIELDS, Config, identity, trial_id
from cnnjax.study.confounds import forward_flops
from cnnjax.study.results import label
from cnnjax.study.run import Plan
from cnnjax.study.selection import relative_cost

# The cost model: the speed of the default study on one CPU thread, and what the first trial of
# a program takes to compile, on the machine of docs/benchmarks.md.
FLOPS_PER_THREAD, COMPILE_SECONDS = 30e9, 8.0
FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Outlook:
    """Trials of the grid, those to run with each one's seconds, distinct programs, the wall time.

    basis: what the seconds were estimated from.
    """

    trials: int
    run: tuple[tuple[Config, float], ...]
    compilations: int
    seconds: float
    basis: str

    def text(self) -> str:
        """Return the outlook: a line a trial to run with what tells it apart, then the totals."""
        names = _apart([config for config, _ in self.run])
        lines = [f"{trial_id(c)}  {_seconds(s):>8}  {_words(c, names)}" for c, s in self.run]
        totals = (
            f"{len(self.run)} of {self.trials} trials to run, {self.compilations} distinct "
            f"compilations, about {_seconds(self.seconds)} (estimated from {self.basis})"
        )
        return "\n".join([*lines, totals])


def program(config: Config) -> Config:
    """Return what trials that share their compiled programs have in common: all but the seed."""
    return dataclasses.replace(config, seed=0)


def forecast(todo: Plan, *, workers: int) -> Outlook:
    """Return the outlook of running `todo.missing`; nothing is compiled, nothing is written."""
    seconds, basis = _estimator(todo)
    run = tuple((config, seconds(config)) for config in todo.missing)
    return Outlook(
        trials=len({trial.id for trial in todo.trials}),
        run=run,
        compilations=len({program(config) for config in todo.missing}),
        seconds=_wall([cost for _, cost in run], workers),
        basis=basis,
    )


def _estimator(todo: Plan) -> tuple[Callable[[Config], float], str]:
    found = ((config, todo.finished.get(trial_id(config), {})) for config in todo.distinct)
    taken = {config: result["seconds"] for config, result in found if result.get("seconds")}
    if taken:
        return _from_finished(taken), f"{len(taken)} finished trials of this directory"
    speed = f"{FLOPS_PER_THREAD / 1e9:g} GFLOP/s a thread, {COMPILE_SECONDS:g} s a compilation"
    return _from_operations(), f"a rough cost model: operations at {speed}"


def _from_finished(taken: Mapping[Config, float]) -> Callable[[Config], float]:
    alike: dict[Config, list[float]] = {}
    for config, took in taken.items():
        alike.setdefault(program(config), []).append(took)
    unit = statistics.fmean(took / relative_cost(config) for config, took in taken.items())

    def seconds(config: Config) -> float:
        known = alike.get(program(config))
        return statistics.fmean(known) if known else unit * relative_cost(config)

    return seconds


def _from_operations() -> Callable[[Config], float]:
    seen: dict[Config, float] = {}

    def seconds(config: Config) -> float:
        key = program(config)
        if key in seen:
            return seen[key]
        seen[key] = _modelled(config)
        return COMPILE_SECONDS + seen[key]

    return seconds


def _modelled(config: Config) -> float:
    dataset = data.load(config.dataset, config.data_dir)
    net = build.build_net(config, dataset.num_classes, dataset.image_shape)
    images = FORWARD_AND_BACKWARD * build.epochs(config) * len(dataset.train.labels)
    judged = len(dataset.test.labels) + config.shift_images * config.eval_places**2
    flops = forward_flops(net, dataset.image_shape) * (images + judged)
    return flops / (FLOPS_PER_THREAD * config.threads)


def _wall(costs: Sequence[float], workers: int) -> float:
    """Return when the last worker ends, each taking the next trial as soon as it is free."""
    free = [0.0] * max(min(workers, len(costs)), 1)
    for cost in costs:
        free[free.index(min(free))] += cost
    return max(free)


def _apart(configs: Sequence[Config]) -> list[str]:
    """Return the fields in which some of the configs differ; of a single one, what names it."""
    if len(configs) == 1:
        return list(identity(configs[0]))
    return [name for name in FIELDS if len({getattr(c, name) for c in configs}) > 1]


def _words(config: Config, names: Sequence[str]) -> str:
    return " ".join(f"{name}={label(getattr(config, name))}" for name in names)


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"

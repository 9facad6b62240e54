"""A study from its grid to its report: check, run what is missing, tabulate, draw.

outcome = run_study(study, out="runs/mine", workers=2)
outcome.report, outcome.failed
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cnnjax import data
from cnnjax.config import Config, trial_id
from cnnjax.study import grid, report, results
from cnnjax.study.engine import Event
from cnnjax.study.grid import Study, Trial
from cnnjax.study.seeds import SEEDS_STRATEGIES, chosen
from cnnjax.study.store import Store


@dataclass(frozen=True)
class Outcome:
    """What a study left: its table, the report's path, the answer and the failed trials."""

    runs: pd.DataFrame
    report: Path
    answer: str
    failed: int


@dataclass(frozen=True)
class Plan:
    """The distinct trials of a grid, and those of them that are still to run."""

    trials: list[Trial]
    distinct: list[Config]
    missing: list[Config]


def plan(study: Study, store: Store, *, retry_failed: bool = False) -> Plan:
    """Return what is to do; ValueError where a trial does not fit its data set."""
    trials = study.trials()
    for spec, data_dir in {(t.config.dataset, t.config.data_dir) for t in trials}:
        dataset = data.load(spec, data_dir)
        grid.check([t for t in trials if t.config.dataset == spec], dataset)
    distinct = list({trial_id(t.runs): t.runs for t in trials}.values())
    finished = store.results(map(trial_id, distinct))
    kept = {k for k, r in finished.items() if not (retry_failed and r["status"] == "failed")}
    missing = [config for config in distinct if trial_id(config) not in kept]
    return Plan(trials, distinct, in_order(missing))


def run_study(
    study: Study,
    out: str | Path,
    *,
    workers: int,
    seeds_strategy: str | None = None,
    retry_failed: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Run every trial that has no result yet, then write the tables and the report.

    seeds_strategy: a row of SEEDS_STRATEGIES, None for the platform's own.
    """
    run = SEEDS_STRATEGIES[chosen(seeds_strategy)]
    store = Store(out)
    todo = plan(study, store, retry_failed=retry_failed)
    with store.lock():
        store.claim(study.describe())
        on_plan(todo)
        run(todo.missing, str(store.root), workers=workers, on_event=on_event)
        return conclude(store, study, todo.trials)


def conclude(store: Store, study: Study, trials: list[Trial]) -> Outcome:
    """Write tables, figures and report from the results on disk."""
    runs = results.write_tables(store, trials)
    found = store.results({t.same_as or t.id for t in trials})
    path = report.write(store, study, runs, found)
    failed = int((runs["status"] == "failed").sum())
    return Outcome(runs, path, report.answer(study, runs), failed)


def in_order(configs: list[Config]) -> list[Config]:
    """Return the configs with one seed of every arm first: the others find it compiled.

    Among those dear trials come first, which keeps the workers evenly busy.
    """
    ranks = collections.Counter[Config]()
    keys = {}
    for config in configs:
        arm = dataclasses.replace(config, seed=0)
        keys[config] = (ranks[arm], -relative_cost(config))
        ranks[arm] += 1
    return sorted(configs, key=keys.__getitem__)


def relative_cost(config: Config) -> float:
    """Return a guess of a trial's cost: dear trials first keeps the workers evenly busy."""
    stride = config.stride or 2
    rows, columns = stride if isinstance(stride, tuple) else (stride, stride)
    return (config.epochs or 1) / (rows * columns)

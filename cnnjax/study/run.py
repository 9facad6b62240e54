"""A study from its grid to its report: check, run what is missing, tabulate, draw.

outcome = run_study(study, out="runs/mine", workers=2)
outcome.report, outcome.failed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cnnjax import data
from cnnjax.config import Config, trial_id
from cnnjax.study import grid, report, results
from cnnjax.study.engine import Event, run_trials
from cnnjax.study.grid import Study, Trial
from cnnjax.study.selection import Choice
from cnnjax.study.store import Store

EVERYTHING = Choice()


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
    return Plan(trials, distinct, missing)


def run_study(
    study: Study,
    out: str | Path,
    *,
    workers: int,
    retry_failed: bool = False,
    choice: Choice = EVERYTHING,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Run every trial of `choice` that has no result yet, then write the tables and the report."""
    store = Store(out)
    todo = plan(study, store, retry_failed=retry_failed)
    with store.lock():
        store.claim(study.describe())
        todo = replace(todo, missing=choice.of(todo.trials, todo.missing))
        on_plan(todo)
        for event in run_trials(todo.missing, str(store.root), workers=workers):
            on_event(event)
        return conclude(store, study, todo.trials)


def conclude(store: Store, study: Study, trials: list[Trial]) -> Outcome:
    """Write tables, figures and report from the results on disk."""
    runs = results.write_tables(store, trials)
    found = store.results({t.same_as or t.id for t in trials})
    path = report.write(store, study, runs, found)
    failed = int((runs["status"] == "failed").sum())
    return Outcome(runs, path, report.answer(study, runs), failed)

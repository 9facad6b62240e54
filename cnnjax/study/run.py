"""A study from its grid to its report: check, run what is missing, tabulate, draw.

outcome = run_study(study, out="runs/mine", engine="local", resources=Resources(workers=2))
outcome.report, outcome.failed
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cnnjax import data
from cnnjax.config import Config, from_dict, identity, to_dict, trial_id
from cnnjax.environment import command
from cnnjax.study import engines, grid, results, seeds
from cnnjax.study.engines.interface import Event, Resources
from cnnjax.study.files import everywhere, is_store
from cnnjax.study.finished import Finished
from cnnjax.study.grid import Study, Trial
from cnnjax.study.rows import failed
from cnnjax.study.selection import Choice
from cnnjax.study.store import Store
from cnnjax.study.work import run_job

ANY_RESOURCES = Resources()

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
    """The distinct trials of a grid, those of them still to run, and what the others found."""

    trials: list[Trial]
    distinct: list[Config]
    missing: list[Config]
    finished: Finished


def check(study: Study, store: Store) -> list[Trial]:
    """Return the study's trials; ValueError where one does not fit its data set or the store."""
    trials = study.trials()
    if not trials:
        raise ValueError(
            "conditions: expected cells that pass all of "
            f"{[condition.text for condition in study.conditions]}, none does"
        )
    for spec, data_dir in {(t.config.dataset, t.config.data_dir) for t in trials}:
        dataset = data.load(spec, data_dir)
        grid.check([t for t in trials if t.config.dataset == spec], dataset)
    if is_store(store.root) and any(t.config.checkpoint_every for t in trials):
        raise ValueError(
            f"checkpoint_every: checkpoints need a file system, got --out={store.root}"
        )
    return trials


def plan(trials: list[Trial], store: Store, *, retry_failed: bool = False) -> Plan:
    """Return what is to do; FileExistsError where a directory holds another trial's result."""
    distinct: dict[str, Config] = {}
    for trial in trials:
        other = distinct.setdefault(trial.owner, trial.runs)
        if other is not trial.runs:  # two cells that are one function, unless their ids collide
            _check_same(to_dict(other), trial.runs, store)
    finished = Finished(store)
    for name, result in store.each(distinct):
        _check_same(result.get("config"), distinct[name], store)
        if not (retry_failed and result["status"] == "failed"):
            finished.add(name, result)
    missing = [config for name, config in distinct.items() if name not in finished]
    return Plan(trials, list(distinct.values()), missing, finished)


def run_study(
    study: Study,
    out: str | Path,
    *,
    engine: str = "local",
    resources: Resources = ANY_RESOURCES,
    seeds_strategy: str | None = None,
    retry_failed: bool = False,
    choice: Choice = EVERYTHING,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Run every trial of `choice` that has no result yet, then write the tables and the report.

    engine, seeds_strategy: rows of ENGINES and SEEDS_STRATEGIES, the latter None for what suits
    where the trials run. ValueError for a mistake, OSError where a file cannot be written,
    ChildProcessError where workers die whatever the trial.
    """
    run = engines.find(engine)
    store = Store(out)
    trials = check(study, store)
    strategy = seeds.choose(
        seeds_strategy,
        engine=engine,
        resources=resources,
        configs=[trial.runs for trial in trials],
    )
    resources = _with_folder(strategy.limit(resources), store)
    with store.lock():
        store.claim(study.describe() | {"command": command()})
        todo = plan(trials, store, retry_failed=retry_failed)  # not before: another may have run
        todo = replace(todo, missing=choice.of(todo.trials, todo.missing))
        on_plan(todo)
        work = partial(run_job, out=everywhere(store.root), again=retry_failed)
        jobs = strategy.jobs(todo.missing)
        for event in _recorded(run(jobs, work, resources), store, todo):
            on_event(event)
        return conclude(store, study, todo.trials, todo.finished)


def _with_folder(resources: Resources, store: Store) -> Resources:
    folder = None if is_store(store.root) else everywhere(store.root / "engine")
    return replace(resources, folder=folder)


def _recorded(events: Iterator[Event], store: Store, todo: Plan) -> Iterator[Event]:
    """Yield the events; a trial that was lost is recorded as failed, with the reason.

    FileNotFoundError where a trial ended elsewhere and left no result here.
    """
    configs = {trial_id(config): config for config in todo.missing}
    with contextlib.closing(events):  # type: ignore[type-var]
        for event in events:
            if event.kind == "lost":
                result = failed(configs[event.trial_id], event.body)
                store.trial(event.trial_id).finish(result)
                event = Event("failed", event.trial_id, result)
            yield event
    todo.finished.read(configs)
    absent = configs.keys() - todo.finished.keys()
    if absent:
        raise FileNotFoundError(
            f"--out={store.root}: {len(absent)} trials ended but left no result here, such as "
            f"{min(absent)}; the directory must be on a file system that all workers share"
        )


def _check_same(there: Any, config: Config, store: Store) -> None:
    if there == to_dict(config):
        return
    try:
        same = identity(from_dict(there)) == identity(config)
    except (ValueError, TypeError, AttributeError):
        same = False  # of another version, or no configuration at all
    if not same:
        raise FileExistsError(
            f"{store.root}: trials/{trial_id(config)} holds another trial's result; "
            "choose a new directory, or delete that one to run it again"
        )


def conclude(
    store: Store, study: Study, trials: list[Trial], finished: Finished | None = None
) -> Outcome:
    """Write tables, figures and report from the results on disk; `finished` are read already."""
    # Statistics and figures are slow to import, and a study is to start at once.
    from cnnjax.study import report

    finished = Finished(store) if finished is None else finished
    finished.read(dict.fromkeys(trial.owner for trial in trials))
    runs = results.write_tables(store, trials, finished)
    path = report.write(store, study, runs, finished)
    failed = int((runs["status"] == "failed").sum())
    return Outcome(runs, path, report.answer(study, runs), failed)

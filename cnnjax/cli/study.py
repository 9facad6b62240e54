"""usage: cnnjax study [NAME | FILE.py] [--FIELD=value,value...] [--out DIR]

Run a grid of trials and write its tables, figures and report.

  cnnjax study                                    the default study, pooling_and_stride
  cnnjax study --pool=max,mean --seed=0,1         a grid of its own: every list is an axis
  cnnjax study pooling_and_stride --seed=0,1      a study of experiments/, changed
  cnnjax study mine.py                            a file that defines STUDY
  cnnjax study --engine=ray --gpus=0.25           four trials share a GPU
  cnnjax study --engine=slurm --slurm=partition=gpu,time=120 --gpus=1
  cnnjax study --seeds_strategy=vmapped           all seeds of an arm as one program

Start an interrupted study again with the same command: finished trials are not run again. Exit
status: 0, or 1 where a trial failed, 2 for a mistake, 130 for Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from cnnjax import spec
from cnnjax.cli.flags import Flags
from cnnjax.cli.progress import showing
from cnnjax.cli.statuses import FAILED
from cnnjax.config import Config, read
from cnnjax.study import results
from cnnjax.study.confounds import apart, matched
from cnnjax.study.engines import ENGINES
from cnnjax.study.engines.interface import Resources
from cnnjax.study.forecast import forecast
from cnnjax.study.grid import Study
from cnnjax.study.run import Outcome, check, plan, run_study
from cnnjax.study.seeds import SEEDS_STRATEGIES
from cnnjax.study.selection import PRIORITIES, Choice
from cnnjax.study.store import Store
from cnnjax.study.table import print_table

DEFAULT = "pooling_and_stride"
GRID_QUESTION = "How do the arms of this grid differ in accuracy and in shift consistency?"


def main(words: list[str]) -> int:
    """Run the verb; return the exit status."""
    flags = Flags("study", __doc__ or "")
    flags.config(sweep=True)
    flags.string("out", None, "directory of the study (default: runs/NAME)")
    flags.boolean("retry_failed", "run failed trials again")
    define_engine(flags)
    define_choice(flags)
    rest = flags.parse(words)
    if rest is None:
        return 0
    study = match(choose(rest, flags), flags)
    if flags.out == "":
        raise ValueError("--out: expected a directory, got ''")
    out = flags.out or os.path.join("runs", study.name)
    how = resources(flags)
    choice = Choice(flags.only, flags.max_trials, flags.priority)
    if flags.dry_run:
        return show_outlook(study, out, how, flags.retry_failed, choice)
    return execute(
        study,
        out,
        engine=flags.engine,
        resources=how,
        seeds_strategy=flags.seeds_strategy,
        retry_failed=flags.retry_failed,
        choice=choice,
    )


def define_engine(flags: Flags) -> None:
    """Define the flags that say what runs the trials, on what, and which of them together."""
    flags.string("engine", "local", f"what runs the trials. {_texts(ENGINES)}")
    flags.integer(
        "workers",
        None,
        "trials at a time, of vmapped ones programs; never changes a result (default: all cores)",
    )
    flags.string(
        "seeds_strategy",
        None,
        f"how the seeds of an arm run. {_texts(SEEDS_STRATEGIES)} "
        "(default: processes on CPU, vmapped on accelerators)",
    )
    flags.string("cpus", None, "CPUs of a trial, for ray and slurm (default: its threads)")
    flags.string("gpus", "0", "GPUs of a trial, for ray and slurm; a fraction shares one (ray)")
    flags.string(
        "address", None, "ray: HOST:PORT or auto, a cluster; slurm: local, to try without Slurm"
    )
    flags.string("slurm", "", "options of sbatch: partition=gpu,time=120 (minutes),mem=16GB")


def resources(flags: Flags) -> Resources:
    """Return what the flags of `define_engine` say; ValueError for an unknown name in any."""
    spec.find(ENGINES, flags.engine, "engine")
    if flags.seeds_strategy is not None:
        spec.find(SEEDS_STRATEGIES, flags.seeds_strategy, "seeds_strategy")
    return Resources(
        workers=flags.workers,
        cpus=None if flags.cpus is None else _amount("cpus", flags.cpus),
        gpus=_amount("gpus", flags.gpus),
        address=flags.address,
        options=_options(flags.slurm),
    )


def define_choice(flags: Flags) -> None:
    """Define the flags that say which trials run, in which order and at which widths."""
    flags.boolean("dry_run", "print trials, distinct compilations and estimated time; run nothing")
    flags.string(
        "only", None, "run these trials alone: field=value|value and trial ids, commas between"
    )
    flags.integer("max_trials", None, "run at most this many trials now")
    flags.string("priority", "programs", f"order of the trials: {', '.join(PRIORITIES)}")
    flags.string("match", None, "rescale widths so that arms cost the same: flops or params")
    flags.string("match_to", None, "the arm to match, field=value,...  (default: the first)")


def show_outlook(
    study: Study, out: str, resources: Resources, retry_failed: bool, choice: Choice
) -> int:
    """Print what the study would do; nothing is run or written."""
    store = Store(out)
    store.refuse_another(study.describe())
    todo = plan(check(study, store), store, retry_failed=retry_failed)
    todo = dataclasses.replace(todo, missing=choice.of(todo.trials, todo.missing))
    print(forecast(todo, workers=resources.workers or os.cpu_count() or 1).text())
    return 0


def match(study: Study, flags: Flags) -> Study:
    """Return the study at the widths that --match and --match_to ask for."""
    if flags.match is None:
        if flags.match_to is not None:
            raise ValueError(f"match_to: expected --match as well, got {flags.match_to!r} alone")
        return study
    pairs = [part.partition("=") for part in (flags.match_to or "").split(",") if part]
    for name, _, _ in pairs:
        spec.find(study.axes, name, "match_to")
    to = {k: read(k, text) for k, _, text in pairs} or None
    same = matched(study, flags.match, to)
    left = apart(same, flags.match, to)
    print(f"match: {flags.match} of the arms differ by {left:.2%} at most", file=sys.stderr)
    return same


def choose(rest: list[str], flags: Flags) -> Study:
    """Return the study that the command line names, with the values it changes."""
    if len(rest) > 1:
        raise ValueError(f"expected one study, got {' '.join(rest)!r}")
    changes = flags.given_config()
    if rest or not changes:
        return load(rest[0] if rest else DEFAULT).changed(changes)
    grid = Study(
        name="grid", question=GRID_QUESTION, base=Config(pool="max"), axes={"pool": ("max",)}
    )
    return grid.changed(changes)


def load(name: str) -> Study:
    """Return the STUDY of a file or of a module of experiments/."""
    if name.endswith(".py"):
        module = _execute(name)
    else:
        module = importlib.import_module(f"experiments.{_find_experiment(name)}")
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise ValueError(f"{name}: expected a module that defines STUDY, a cnnjax Study")
    from cnnjax.study.statistics.contrast import check_arms  # slow to import

    check_arms(study)  # as it was written; a smaller grid may be asked for
    return study


def _execute(name: str) -> ModuleType:
    """Return a study file as a module; ValueError names the line of the file that fails."""
    if not Path(name).is_file():
        raise FileNotFoundError(f"no study file {name!r}")
    source = importlib.util.spec_from_file_location("study_file", name)
    assert source is not None and source.loader is not None
    module = importlib.util.module_from_spec(source)
    sys.modules[source.name] = module  # as for any import: a dataclass in it looks itself up there
    try:
        source.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == source.origin]
        place = f"{name}, line {lines[-1]}" if lines else name
        raise ValueError(f"{place}: {type(error).__name__}: {error}") from error
    return module


def execute(study: Study, out: str, **how: Any) -> int:
    """Run the study as `run_study` with its progress shown, then print the table and the answer."""
    with showing(study, out) as progress:
        outcome = run_study(study, out, **how, on_plan=progress.plan, on_event=progress.event)
    return show(outcome, study, Console())


def show(outcome: Outcome, study: Study, console: Console) -> int:
    """Print table, notes and answer; return the exit status: 1 where a trial failed."""
    from cnnjax.study import report  # slow to import, and here it has been

    by = results.arms(outcome.runs, list(study.axes))
    print_table(outcome.runs, by=by, console=console)
    for note in report.notes(outcome.runs, by):
        console.print(note, highlight=False)
    console.print(f"\n{outcome.answer}\n", highlight=False)
    console.print(f"report: {outcome.report}", highlight=False, soft_wrap=True)
    return FAILED if outcome.failed else 0


def _texts(cards: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {card.text}" for name, card in cards.items())


def _amount(name: str, text: str) -> float:
    allowed = "a number from 0 to 1, or a whole number"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (value > 1 and value != int(value)):
        raise ValueError(f"--{name}: expected {allowed}, got {text!r}")
    return value


def _options(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part]
    if any(not key or not value for key, _, value in pairs):
        raise ValueError(f"--slurm: expected KEY=VALUE,KEY=VALUE, got {text!r}")
    return {key: value for key, _, value in pairs}


def _find_experiment(name: str) -> str:
    # By name and not by import: studies stand on the command line, never the other way round.
    places = importlib.import_module("experiments").__path__
    spec.find({module.name: None for module in pkgutil.iter_modules(places)}, name, "study")
    return name

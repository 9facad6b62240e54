"""usage: cnnjax study [NAME | FILE.py] [--FIELD=value,value...] [--out DIR]

Run a grid of trials and write its tables, figures and report.

  cnnjax study                                    the default study, pooling_and_stride
  cnnjax study --pool=max,mean --seed=0,1         a grid of its own: every list is an axis
  cnnjax study pooling_and_stride --seed=0,1      a study of experiments/, changed
  cnnjax study mine.py                            a file that defines STUDY

Start an interrupted study again with the same command: finished trials are not run again. Exit
status: 0, or 1 where a trial failed, 2 for a mistake, 130 for Ctrl-C.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from pathlib import Path
from typing import Any

from rich.console import Console

from cnnjax import spec
from cnnjax.cli.flags import Flags
from cnnjax.cli.progress import Progress
from cnnjax.config import Config
from cnnjax.study import report, results
from cnnjax.study.grid import Study
from cnnjax.study.run import Outcome, run_study
from cnnjax.study.seeds import SEEDS_STRATEGIES
from cnnjax.study.table import print_table

DEFAULT = "pooling_and_stride"
GRID_QUESTION = "How do the arms of this grid differ in accuracy and in shift consistency?"


def main(words: list[str]) -> int:
    """Run the verb; return the exit status."""
    flags = Flags("study", __doc__ or "")
    flags.config(sweep=True)
    flags.string("out", None, "directory of the study (default: runs/NAME)")
    flags.integer("workers", None, "trials at a time; never changes a result (default: cores)")
    flags.string(
        "seeds_strategy",
        None,
        f"how the seeds of an arm run: {', '.join(SEEDS_STRATEGIES)} "
        "(default: processes on CPU, vmapped on accelerators)",
    )
    flags.boolean("retry_failed", "run failed trials again")
    rest = flags.parse(words)
    if rest is None:
        return 0
    study = choose(rest, flags)
    out = flags.out or os.path.join("runs", study.name)
    return execute(
        study,
        out,
        workers=flags.workers or os.cpu_count() or 1,
        seeds_strategy=flags.seeds_strategy,
        retry_failed=flags.retry_failed,
    )


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
        if not Path(name).is_file():
            raise FileNotFoundError(f"no study file {name!r}")
        source = importlib.util.spec_from_file_location("study_file", name)
        assert source is not None and source.loader is not None
        module = importlib.util.module_from_spec(source)
        source.loader.exec_module(module)
    else:
        module = importlib.import_module(f"experiments.{_find_experiment(name)}")
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise ValueError(f"{name}: expected a module that defines STUDY, a cnnjax Study")
    return study


def execute(study: Study, out: str, **how: Any) -> int:
    """Run the study as `run_study` with its progress shown, then print the table and the answer."""
    with Progress(study, out) as progress:
        outcome = run_study(study, out, **how, on_plan=progress.plan, on_event=progress.event)
    return show(outcome, study, Console())


def show(outcome: Outcome, study: Study, console: Console) -> int:
    """Print table, notes and answer; return the exit status: 1 where a trial failed."""
    by = results.arms(outcome.runs, list(study.axes))
    print_table(outcome.runs, by=by, console=console)
    for note in report.notes(outcome.runs, by):
        console.print(note, highlight=False)
    console.print(f"\n{outcome.answer}\n", highlight=False)
    console.print(f"report: {outcome.report}", highlight=False, soft_wrap=True)
    return 1 if outcome.failed else 0


def _find_experiment(name: str) -> str:
    # By name and not by import: studies stand on the command line, never the other way round.
    places = importlib.import_module("experiments").__path__
    spec.find({module.name: None for module in pkgutil.iter_modules(places)}, name, "study")
    return name

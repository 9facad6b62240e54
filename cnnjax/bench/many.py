"""A study of 10,000 trials that are finished: to list, go on with, tabulate, report and load it.

Beside each, what it cannot do without: reading every result.json as JSON. The results are made up,
so nothing is trained. `temporary_bytes` is the most that Python held at a time.
"""

from __future__ import annotations

import atexit
import json
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.bench.measure import Candidate, Cell
from cnnjax.config import Config
from cnnjax.results import load
from cnnjax.study.grid import Study
from cnnjax.study.rows import header
from cnnjax.study.run import check, conclude, plan, run_study
from cnnjax.study.store import Store

GROUP = ("work",)
TRIALS, EPOCHS = 10_000, 6
STUDY = Study(
    name="many",
    question="Does a study of ten thousand trials still take seconds?",
    base=Config(padding="CIRCULAR", head="gap", window=3, widths=(4, 8), dense=(), epochs=EPOCHS),
    axes={
        "pool": ("max", "min", "mean", "decimate", "aps"),
        "stride": (1, 2, 3, 6),
        "lr": (0.001, 0.003, 0.01, 0.03, 0.1),
        "seed": tuple(range(100)),
    },
)


def cells() -> Iterator[Cell]:
    """Yield a cell for each thing one does with a study."""
    for work in ("list", "resume", "report", "load"):
        yield Cell({"work": work, "trials": str(TRIALS)}, partial(candidates, work, TRIALS))


def candidates(work: str, trials: int) -> Mapping[str, Candidate]:
    """Return the work on a study of so many trials, and the bare reading of its results."""
    made, store = study(trials), Store(directory(trials))
    ways: Mapping[str, Callable[[], object]] = {
        "list": lambda: plan(check(made, store), store),
        "resume": lambda: run_study(made, store.root),
        "report": lambda: conclude(store, made, made.trials()),
        "load": lambda: load(store.root),
    }
    found: Mapping[str, Callable[[], object]] = {
        "cnnjax": ways[work],
        "json": partial(bare, store.root),
    }
    return {name: Candidate(way, most_bytes(way)) for name, way in found.items()}


def bare(root: Path) -> list[Any]:
    """Return every result as it is: what the rest is measured against."""
    return [json.loads(path.read_bytes()) for path in root.glob("trials/*/result.json")]


def most_bytes(work: Callable[[], object]) -> int:
    """Return the most that Python holds at a time while it works, beside what it holds already."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@cache
def directory(trials: int) -> Path:
    """Return a directory with a finished study of so many trials; it goes with the process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    write(Path(folder.name), study(trials))
    return Path(folder.name)


def study(trials: int) -> Study:
    """Return STUDY with as many seeds as make this number of trials."""
    arms = int(np.prod([len(values) for name, values in STUDY.axes.items() if name != "seed"]))
    return replace(STUDY, axes={**STUDY.axes, "seed": tuple(range(trials // arms))})


def write(root: Path, study: Study) -> None:
    """Write the directory of the study as if all its trials had run; nothing is flushed to disk."""
    rng = np.random.default_rng(0)
    Store(root).claim(study.describe())
    for name, config in {trial.owner: trial.runs for trial in study.trials()}.items():
        folder = root / "trials" / name
        folder.mkdir(parents=True)
        figures = rng.random(EPOCHS)
        lines = [{"epoch": i + 1, "loss": x, "accuracy": 1 - x} for i, x in enumerate(figures)]
        found = header(config) | result(rng)
        (folder / "config.json").write_text(json.dumps(found["config"]))
        (folder / "env.json").write_text(json.dumps({"commit": "abc", "jax": "0.0"}))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        (folder / "result.json").write_text(json.dumps(found, indent=1))


def result(rng: np.random.Generator) -> dict[str, Any]:
    """Return a made-up result with all that a real one of the default study has."""
    names = ("accuracy", "accuracy_away", "consistency", "test_loss", *(f"f{i}" for i in range(12)))
    side = range(-10, 11, 4)
    offsets = [[dy, dx] for dy in side for dx in side]
    return {
        "status": "done",
        "metrics": dict(zip(names, rng.random(len(names)).tolist(), strict=True))
        | {"test_images": 360, "shifted_images": 360, "parameters": 4000},
        "places": {
            "offsets": offsets,
            "accuracy": rng.random(len(offsets)).tolist(),
            "boundary": "zeros",
        },
        "certificate": {
            "verdict": "exact",
            "paragraph": "All shifts by multiples. " * 8,
            "proof": {},
        },
        "data_sha256": "d" * 64,
        "variables_sha256": rng.bytes(32).hex(),
        "seconds_training": 1.0,
        "seconds": 2.0,
    }

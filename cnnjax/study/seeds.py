"""SEEDS_STRATEGIES: how trials that differ in the seed alone become the jobs of an engine.

    strategy = choose(None, engine="local", resources=Resources(), configs=configs)
    engine(strategy.jobs(configs), work, strategy.limit(resources))

A strategy says which trials one worker runs at a time and how many workers there are; engines run
whatever jobs they get. All write the same files of the same trials.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec

from cnnjax import spec
from cnnjax.config import Config, to_dict, trial_id
from cnnjax.study.engines.interface import Job, Resources
from cnnjax.train.seeds import TOGETHER, fits_together, group


def _apart(configs: Sequence[Config]) -> list[list[Config]]:
    return [[config] for config in configs]


@dataclass(frozen=True)
class Strategy:
    """What is told of it, which trials are a job, and how many workers there are unless told."""

    text: str
    groups: Callable[[Sequence[Config]], list[list[Config]]] = _apart
    workers: int | None = None

    def jobs(self, configs: Sequence[Config]) -> list[Job]:
        """Return the jobs of these trials, in their order."""
        return [
            Job({trial_id(config): to_dict(config) for config in members}, members[0].threads)
            for members in self.groups(configs)
        ]

    def limit(self, resources: Resources) -> Resources:
        """Return the resources with the number of workers."""
        workers = self.workers if resources.workers is None else resources.workers
        return dataclasses.replace(resources, workers=workers)


SEEDS_STRATEGIES: Mapping[str, Strategy] = {
    "sequential": Strategy("one worker, one trial after another", workers=1),
    "processes": Strategy("a worker for each trial, as many at a time as --workers"),
    "vmapped": Strategy("the seeds of an arm as one program", group),
}
# Of a machine's own accelerator, which a program of several seeds is meant to fill.
ALONE_ON_IT = dataclasses.replace(SEEDS_STRATEGIES["vmapped"], workers=1)


def choose(
    name: str | None, *, engine: str, resources: Resources, configs: Sequence[Config]
) -> Strategy:
    """Return the strategy, for None what suits where the trials run.

    That is "vmapped" on accelerators, and "processes" on CPU. ValueError for an unknown name, and
    for one that does not go with the number of workers or with any of the trials.
    """
    if name is not None:
        spec.find(SEEDS_STRATEGIES, name, "seeds_strategy")
        _check(name, resources, configs)
    if name in ("sequential", "processes"):
        return SEEDS_STRATEGIES[name]
    accelerated = platform() != "cpu" if engine == "local" else resources.gpus > 0
    if name is None and not accelerated:
        return SEEDS_STRATEGIES["processes"]
    return ALONE_ON_IT if engine == "local" and accelerated else SEEDS_STRATEGIES["vmapped"]


def _check(name: str, resources: Resources, configs: Sequence[Config]) -> None:
    if name == "sequential" and resources.workers not in (None, 1):
        raise ValueError(
            f"workers: expected none or 1 with --seeds_strategy=sequential, got {resources.workers}"
        )
    if name != "vmapped" or any(map(fits_together, configs)):
        return
    for knob, values in TOGETHER.items():
        for config in configs:
            if getattr(config, knob) not in values:
                raise ValueError(
                    f"seeds_strategy: 'vmapped' needs trials that can be one program; with "
                    f"{knob}={getattr(config, knob)} each trains alone"
                )


def platform() -> str:
    """Return what JAX computes on here: "cpu", "gpu" or "tpu".

    Asked in a process of its own, for one that starts JAX keeps the accelerator's memory.
    """
    chosen = os.environ.get("JAX_PLATFORMS", "").partition(",")[0]
    if chosen == "cpu" or not (chosen or entry_points(group="jax_plugins") or find_spec("libtpu")):
        return "cpu"
    ask = "import jax; print(jax.default_backend())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    return done.stdout.strip() or "cpu"  # what is wrong with JAX the first worker says

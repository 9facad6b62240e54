"""Engines: what runs the trials of a study, here or on a cluster; same files, same results.

    run = find("ray")
    for event in run(jobs, work, Resources(workers=2, gpus=0.5)):
        print(event.trial_id, event.kind)      # "epoch", "done", "failed", "crashed", "lost"

An engine is a module with `run(jobs, work, resources) -> Iterator[Event]`; adding one is such a
module plus one row here. Nothing in this package imports JAX: only workers do, of which one plans
and reports (`driver`).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from cnnjax import spec
from cnnjax.study.engines import driver
from cnnjax.study.engines.interface import Engine


@dataclass(frozen=True)
class Card:
    """An engine's module, what it is, and the package and extra of this project it needs."""

    module: str
    text: str
    package: str | None = None


ENGINES: Mapping[str, Card] = {
    "local": Card("cnnjax.study.engines.local", "worker processes of this machine"),
    "ray": Card("cnnjax.study.engines.ray", "Ray, its own instance or a cluster", "ray"),
    "slurm": Card("cnnjax.study.engines.slurm", "Slurm jobs, by way of submitit", "submitit"),
}


def find(name: str) -> Engine:
    """Return the engine of that name, which runs in the driver where this process has one.

    ValueError for an unknown name or a missing package.
    """
    card = spec.find(ENGINES, name, "engine")
    if card.package is not None and importlib.util.find_spec(card.package) is None:
        raise ValueError(
            f"engine: {name!r} needs the package {card.package}, "
            f"which is not installed; pip install 'cnnjax[{name}]'"
        )
    if driver.is_attached():
        return partial(driver.ask, card.module)
    return importlib.import_module(card.module).run

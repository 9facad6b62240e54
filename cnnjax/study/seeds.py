"""SEEDS_STRATEGIES: how the trials of a study that differ in the seed alone come to their numbers.

    run = engine(None, "local")
    for event in run(jobs, work, resources): ...

All strategies write the same files of the same trials. "vmapped" gives the numbers of a trial alone
up to rounding, the others bit for bit.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnjax import build, data, spec
from cnnjax.config import Config, from_dict, to_dict, trial_id
from cnnjax.study import engines
from cnnjax.study.engines.interface import Engine, Event, Job, Report, Resources, Work
from cnnjax.study.environment import describe
from cnnjax.study.store import Store
from cnnjax.study.trial import failure, learnt_from, limit_threads, row
from cnnjax.train.seeds import group, train_seeds

SEEDS_STRATEGIES: Mapping[str, str] = {
    "sequential": "one after another, in one worker process",
    "processes": "side by side, as the engine does",
    "vmapped": "as one program, in this process",
}


def engine(strategy: str | None, name: str) -> Engine:
    """Return the engine `name` with this strategy, None for the platform's own.

    ValueError for an unknown one, and for an engine that runs trials elsewhere.
    """
    strategy = strategy or ("vmapped" if name == "local" and accelerated() else "processes")
    spec.find(SEEDS_STRATEGIES, strategy, "seeds_strategy")
    if strategy == "processes":
        return engines.find(name)
    if name != "local":
        raise ValueError(
            f"seeds_strategy: {strategy!r} is for --engine=local, got --engine={name}; "
            "allowed there: processes"
        )
    if strategy == "vmapped":
        return vmapped
    run = engines.find(name)
    return lambda jobs, work, resources: run(jobs, work, dataclasses.replace(resources, workers=1))


def accelerated() -> bool:
    """Return whether JAX would find a GPU or TPU plug-in here; starts no backend."""
    if os.environ.get("JAX_PLATFORMS", "").lower() == "cpu":
        return False
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None


def vmapped(jobs: Sequence[Job], work: Work, resources: Resources) -> Iterator[Event]:
    """Run the seeds of an arm at once, in this process; what cannot be together, one by one."""
    del resources
    store = Store(work.keywords["out"])  # type: ignore[attr-defined]
    by_id = {job.trial_id: job for job in jobs}
    for members in group([from_dict(dict(job.config)) for job in jobs]):
        limit_threads(members[0].threads)
        events: list[Event] = []
        if len(members) > 1:
            run_together(store, members, events.append)
        else:
            events.append(work(by_id[trial_id(members[0])], events.append))
        yield from events


def run_together(store: Store, configs: Sequence[Config], report: Report) -> None:
    """Train the configs, which differ in the seed alone, as one program; measure each."""
    start, first = time.perf_counter(), configs[0]
    files = [store.trial(trial_id(config)) for config in configs]
    where = describe(threads=first.threads) | {"seeds_at_once": len(configs)}
    for config, each in zip(configs, files, strict=True):
        each.start(to_dict(config), where)

    def on_epoch(index: int, line: dict[str, Any]) -> None:
        files[index].log(line)
        report(Event("epoch", trial_id(configs[index]), line))

    dataset = data.load(first.dataset, first.data_dir)
    for each in files:
        each.save_data(learnt_from(dataset))
    net = build.build_net(first, dataset.num_classes, dataset.image_shape)
    seeds = [config.seed for config in configs]
    try:
        outcomes: Sequence[Any] = train_seeds(first, net, dataset, seeds, on_epoch)
    except OSError:
        raise
    except Exception as error:
        outcomes = [error] * len(configs)
    seconds = (time.perf_counter() - start) / len(configs)
    for config, each, outcome in zip(configs, files, outcomes, strict=True):
        if isinstance(outcome, Exception):
            result = failure(config, outcome)
        else:
            result = row(config, net, outcome, dataset, each, seconds=seconds)
        each.finish(result)
        report(Event(result["status"], trial_id(config), result))

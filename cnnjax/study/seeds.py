"""SEEDS_STRATEGIES: how the trials of a study that differ in the seed alone come to their numbers.

    run = SEEDS_STRATEGIES[chosen(None)]
    run(configs, out, workers=2, on_event=print)

"processes" on CPU: a worker a core, bit for bit a trial alone. "vmapped" on accelerators: the seeds
of an arm as one program, a trial alone up to rounding. "sequential": one worker. All write the same
files of the same trials.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from cnnjax import build, data, spec
from cnnjax.config import Config, to_dict, trial_id
from cnnjax.study.engine import Event, run_trials
from cnnjax.study.environment import describe
from cnnjax.study.store import Store
from cnnjax.study.trial import failure, limit_threads, row, run_in
from cnnjax.train.seeds import group, train_seeds
from cnnjax.train.watch import OnEpoch

OnEvent = Callable[[Event], None]


def chosen(strategy: str | None) -> str:
    """Return the strategy, the platform's own for None; ValueError for an unknown one."""
    if strategy is None:
        return "processes" if jax.default_backend() == "cpu" else "vmapped"
    spec.find(SEEDS_STRATEGIES, strategy, "seeds_strategy")
    return strategy


def processes(configs: Sequence[Config], out: str, *, workers: int, on_event: OnEvent) -> None:
    """Run the trials in worker processes, as many at a time as `workers`."""
    for event in run_trials(configs, out, workers=workers):
        on_event(event)


def sequential(configs: Sequence[Config], out: str, *, workers: int, on_event: OnEvent) -> None:
    """Run the trials one after another in one worker process."""
    processes(configs, out, workers=1, on_event=on_event)


def vmapped(configs: Sequence[Config], out: str, *, workers: int, on_event: OnEvent) -> None:
    """Run the seeds of an arm at once, in this process; what cannot be together, one by one."""
    store = Store(out)
    for members in group(configs):
        limit_threads(members[0].threads)
        if len(members) > 1:
            run_together(store, members, on_event)
            continue
        (config,) = members
        name = trial_id(config)
        report = _reporter(name, on_event)
        result = run_in(store.trial(name), config, OnEpoch(report))
        on_event(Event(result["status"], name, result))


def run_together(store: Store, configs: Sequence[Config], on_event: OnEvent) -> None:
    """Train the configs, which differ in the seed alone, as one program; measure each."""
    start, first = time.perf_counter(), configs[0]
    files = [store.trial(trial_id(config)) for config in configs]
    reports = [_reporter(trial_id(config), on_event) for config in configs]
    where = describe(threads=first.threads) | {"seeds_at_once": len(configs)}
    for config, each in zip(configs, files, strict=True):
        each.start(to_dict(config), where)

    def on_epoch(index: int, line: dict[str, Any]) -> None:
        files[index].log(line)
        reports[index](line)

    dataset = data.load(first.dataset, first.data_dir)
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
            result = row(config, net, outcome, dataset, each.save_variables, seconds=seconds)
        each.finish(result)
        on_event(Event(result["status"], trial_id(config), result))


def _reporter(name: str, on_event: OnEvent) -> Callable[[Mapping[str, Any]], None]:
    return lambda line: on_event(Event("epoch", name, line))


SEEDS_STRATEGIES: Mapping[str, Callable[..., None]] = {
    "sequential": sequential,
    "processes": processes,
    "vmapped": vmapped,
}

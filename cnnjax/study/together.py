"""Trials that differ in the seed alone: trained as one program, measured and kept one by one.

    rows = run_together(store, configs, report=print)     # report(trial_id, line) for each epoch

Each trial has its own files, its own numbers and its own failure: one that diverges leaves the
others as they are, and where the program as a whole fails (too little memory for all of them), each
trial runs alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cnnjax import build, data
from cnnjax.config import Config, trial_id
from cnnjax.study.keeping import begin, learnt_from, or_failure
from cnnjax.study.store import Store, TrialFiles
from cnnjax.study.trial import limit_threads, row, run_in
from cnnjax.train.seeds import train_seeds
from cnnjax.train.watch import OnEpoch

Report = Callable[[str, Any], None]


def run_together(store: Store, configs: Sequence[Config], report: Report) -> list[dict[str, Any]]:
    """Return the row of each trial, all of them finished in the store.

    OSError where a file cannot be written; FileExistsError where a directory is another trial's.
    """
    limit_threads(configs[0].threads)
    files = [store.trial(trial_id(config)) for config in configs]
    for config, each in zip(configs, files, strict=True):
        begin(each, config, seeds_at_once=len(configs))
    try:
        measures = _trained(configs, files, report)
    except OSError:
        raise
    except Exception:
        measures = None  # and not here: the error holds the arrays that left no memory
    rows = []
    for index, (config, each) in enumerate(zip(configs, files, strict=True)):
        if measures is None:
            rows.append(run_in(each, config, OnEpoch(partial(report, trial_id(config)))))
            continue
        rows.append(or_failure(config, measures[index]))
        each.finish(rows[-1])
    return rows


def _trained(
    configs: Sequence[Config], files: Sequence[TrialFiles], report: Report
) -> list[Callable[[], dict[str, Any]]]:
    """Train the configs as one program; return what measures each, or raises why it cannot."""
    start, first = time.perf_counter(), configs[0]
    dataset = data.load(first.dataset, first.data_dir)
    for each in files:
        each.save_data(learnt_from(dataset))
    net = build.build_net(first, dataset.num_classes, dataset.image_shape)

    def on_epoch(index: int, line: dict[str, Any]) -> None:
        files[index].log(line)
        report(trial_id(configs[index]), line)

    outcomes = train_seeds(first, net, dataset, [config.seed for config in configs], on_epoch)
    seconds = (time.perf_counter() - start) / len(configs)

    def measure(index: int) -> dict[str, Any]:
        outcome = outcomes[index]
        if isinstance(outcome, Exception):
            raise outcome
        return row(configs[index], net, outcome, dataset, files[index], seconds=seconds)

    return [partial(measure, index) for index in range(len(configs))]

"""One trial, from a Config to a number: load, build, train, measure.

    row = run(Config(pool="aps", stride=2))
    row["metrics"]["accuracy"], row["metrics"]["consistency"]

This is the story of the project, top to bottom; each line's detail is one file away.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

import flax.linen as nn

from cnnjax import build, data
from cnnjax.config import Config, identity, trial_id
from cnnjax.data import Dataset
from cnnjax.study.judge import guarantee, judge
from cnnjax.study.keeping import CHECKPOINTS, begin, fingerprint, flat, learnt_from, or_failure
from cnnjax.study.rows import header
from cnnjax.study.store import TrialFiles
from cnnjax.train.checkpoints import Checkpoints
from cnnjax.train.fit import Report, ignore
from cnnjax.train.saver import Saver, Stop
from cnnjax.train.training import train
from cnnjax.train.watch import NOBODY, Callback


class Ready(NamedTuple):
    """A trial loaded and built, and when that began (`time.perf_counter`)."""

    dataset: Dataset
    net: nn.Module
    began: float


def run(config: Config, out_dir: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Train and measure one trial; return its row {id, status, config, metrics, places, ...}.

    With `out_dir` the trial's files are kept there, and a finished trial is returned as it stands;
    FileExistsError where the directory holds another one. ValueError where the network does not
    fit the images, Diverged where the loss stops being finite.
    """
    if out_dir is None:
        return measure(config)
    files = TrialFiles(out_dir)
    finished = files.result()
    if finished is None:
        return run_in(files, config, ready=prepare(config))
    name = finished.get("id", "unnamed")
    if name != trial_id(config):
        raise FileExistsError(f"{out_dir} holds another trial, {name}; choose a new one")
    return finished


def run_in(
    files: TrialFiles,
    config: Config,
    watch: Callback = NOBODY,
    stop: Stop | None = None,
    ready: Ready | None = None,
) -> dict[str, Any]:
    """Run a trial and keep its files; one that fails is finished too, with its reason.

    Who makes it `ready` learns of a mistake before anything is written. A trial with checkpoints
    goes on from the last one. FileExistsError where the directory is another trial's; Stopped where
    `stop()` turned true and a checkpoint was written.
    """
    begin(files, config)
    result = header(config) | {"status": "stopped"}
    try:
        watch.start(header(config))
        result = or_failure(config, lambda: _measured(files, config, watch, stop, ready))
        files.finish(result)
    finally:
        watch.end(result)
    return result


def _measured(
    files: TrialFiles, config: Config, watch: Callback, stop: Stop | None, ready: Ready | None
) -> dict[str, Any]:
    def on_epoch(line: dict[str, Any]) -> None:
        files.log(line)
        watch.epoch(line)

    with Checkpoints(
        files.root / CHECKPOINTS, owner=identity(config), keep=config.checkpoint_keep
    ) as checkpoints:
        saver = Saver(checkpoints, config.checkpoint_every, stop)
        return measure(config, on_epoch, files, saver, ready)


def measure(
    config: Config,
    on_epoch: Report = ignore,
    files: TrialFiles | None = None,
    saver: Saver | None = None,
    ready: Ready | None = None,
) -> dict[str, Any]:
    """Train the network of `config` and measure it.

    `files` keep what it learns from, its variables and its predictions.
    """
    saver = saver or Saver()
    dataset, net, began = ready or prepare(config)
    if files is not None:
        files.save_data(learnt_from(dataset))
    variables = train(config, net, dataset, on_epoch, saver=saver)
    seconds = time.perf_counter() - began + saver.seconds_before
    with saver.until_asked():
        return row(config, net, variables, dataset, files, seconds=seconds)


def prepare(config: Config) -> Ready:
    """Load the data and build the network; ValueError where it does not fit the images."""
    began = time.perf_counter()
    limit_threads(config.threads)
    dataset = data.load(config.dataset, config.data_dir)
    net = build.build_net(config, dataset.num_classes, dataset.image_shape)
    return Ready(dataset, net, began)


def row(
    config: Config,
    net: nn.Module,
    variables: Any,
    dataset: Dataset,
    files: TrialFiles | None = None,
    *,
    seconds: float,
) -> dict[str, Any]:
    """Measure a network that took `seconds` to train; return its row."""
    start = time.perf_counter()
    judged = judge(config, net, variables, dataset)
    examined = time.perf_counter()
    certificate = guarantee(config, net, variables, dataset, judged.all_shifts)
    seconds_battery = judged.seconds_battery + time.perf_counter() - examined
    arrays = flat(variables)
    if files is not None:
        files.save_variables(arrays)
        files.save_predictions(judged.predictions.arrays())
    return header(config) | {
        "status": "done",
        "metrics": judged.metrics,
        "places": judged.places,
        "certificate": certificate,
        "data_sha256": dataset.checksum,
        "variables_sha256": fingerprint(arrays),
        "seconds_training": seconds,
        "seconds_battery": seconds_battery,
        "seconds": seconds + time.perf_counter() - start,
    }


def limit_threads(threads: int) -> None:
    """Give JAX's CPU backend this many threads; without effect once it has started."""
    os.environ["NPROC"] = str(threads)

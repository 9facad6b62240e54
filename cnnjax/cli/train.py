"""usage: cnnjax train [--FIELD=value...] [--out DIR]

Train one network and measure it: accuracy, accuracy at shifted places, shift consistency.

  cnnjax train --pool=aps --stride=3 --padding=CIRCULAR --head=gap
  cnnjax train --net=lenet5_modern --dataset=mnist --data_dir=DIR --epochs=3 --out=runs/lenet
  cnnjax train --out=runs/mine --watch=tensorboard,wandb,mlflow
  cnnjax train --devices=0 --batch_size=512 --out=runs/wide --checkpoint_every=200

--cost prints a line a layer: output, parameters, FLOPs (two for each product of convolutions and
matrices) and bytes for one image; the receptive field in pixels, the stride between neighbouring
units' fields and where the first one's field is centred. "global" sees the image from end to end.

With --out the run is kept in DIR: config.json, env.json, metrics.jsonl, variables.npz, result.json
and checkpoints/. The same command again goes on from the last checkpoint. SIGTERM writes one and
ends with status 75: run it again. Several processes: see `cnnjax launch --help`; under srun and
mpirun they find each other, and end with status 69 where one of them dies: run it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax

from cnnjax import build, data, optimization
from cnnjax.cli import answer
from cnnjax.cli.flags import Flags
from cnnjax.cli.statuses import ALIKE, FAILED, LOST, RESUMABLE
from cnnjax.config import Config, identity
from cnnjax.nets.anatomy import anatomy
from cnnjax.study.compilation import use_cache
from cnnjax.study.keeping import CHECKPOINTS, failure, or_failure
from cnnjax.study.store import Store, TrialFiles
from cnnjax.study.trial import limit_threads, measure, prepare, run, run_in
from cnnjax.train import processes
from cnnjax.train.checkpoints import Checkpoints
from cnnjax.train.cost import cost
from cnnjax.train.parallel import make_plan
from cnnjax.train.progress import Diverged
from cnnjax.train.saver import Saver, Stopped
from cnnjax.train.trackers import TRACKERS, trackers
from cnnjax.train.watch import Callback, Several


def main(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where the loss stopped being finite."""
    status = answer("train", lambda: _main(words))
    if status and status not in ALIKE and jax.distributed.is_initialized():
        # An orderly end would wait for the others, which wait for this process.
        sys.stdout.flush()
        os._exit(status)
    return status


def _main(words: list[str]) -> int:
    flags = define_flags()
    rest = flags.parse(words)
    if rest is None:
        return 0
    if rest:
        raise ValueError(f"expected flags only, got {' '.join(rest)!r}")
    config = Config(**{name: values[0] for name, values in flags.given_config().items()})
    for name in optimization.unread(config):
        raise ValueError(
            f"{name}: {config.optimizer}, {config.loss} and {config.schedule} make no use of it, "
            f"got {getattr(config, name)}"
        )
    if flags.profile == "":
        raise ValueError("profile: expected a directory, got ''")
    if flags.out == "":
        raise ValueError("out: expected a directory, got ''")
    if config.checkpoint_every and flags.out is None:
        raise ValueError("checkpoint_every: expected --out=DIR, where checkpoints are kept")
    if (flags.num_processes or 0) > config.batch_size:
        raise ValueError(
            f"num_processes: expected at most {config.batch_size}, an image of the batch each, "
            f"got {flags.num_processes}"
        )
    watch = _watch(flags.watch, flags.out)
    processes.end_with_launcher()
    limit_threads(config.threads)
    use_cache()
    processes.join(flags.coordinator, flags.num_processes, flags.process_id)
    plan = make_plan(config.parallel, config.devices)
    plan.check(batch_size=config.batch_size, microbatches=config.microbatches, unit=config.unit)
    if flags.cost:
        return show_cost(config)
    try:
        with _profile(flags.profile), processes.none_lost():
            result = _run(config, flags.out, watch)
    except Stopped as stopped:
        again = "begins again" if flags.out is None else "goes on from there"
        print(f"cnnjax train: {stopped}; the same command {again}", file=sys.stderr)
        return RESUMABLE
    except processes.Lost as lost:
        print(f"cnnjax train: {lost}; the same command goes on", file=sys.stderr, flush=True)
        return LOST
    return _conclude(result)


def define_flags() -> Flags:
    """Return the flags of the verb."""
    flags = Flags("train", __doc__ or "")
    flags.config(sweep=False)
    flags.string("out", None, "directory of the run (default: nothing is kept)")
    flags.boolean(
        "cost",
        "print what each layer gives, costs and sees, and what a step costs; train nothing",
    )
    flags.string("profile", None, "directory for a trace of the whole run (ui.perfetto.dev)")
    flags.string("watch", None, f"trackers that follow the run: {', '.join(TRACKERS)}")
    flags.string("coordinator", None, "HOST:PORT of process 0, where there are several processes")
    flags.integer("num_processes", None, "how many processes there are")
    flags.integer("process_id", None, "which of them this is, from 0 on", least=0)
    return flags


def _conclude(result: dict[str, Any]) -> int:
    if result["status"] == "failed":
        print(f"cnnjax train: {result['reason']}", file=sys.stderr)
        return FAILED
    return _print(result["metrics"]) if processes.is_first() else 0


def _print(numbers: Mapping[str, float]) -> int:
    width = max(16, *(len(name) + 2 for name in numbers))
    for name, value in numbers.items():
        print(
            f"{name:{width}}{value:.4f}" if isinstance(value, float) else f"{name:{width}}{value}"
        )
    return 0


def show_cost(config: Config) -> int:
    """Print a line a layer, for one image, then what a step costs as compiled."""
    dataset = data.load(config.dataset, config.data_dir)
    net = build.build_net(config, dataset.num_classes, dataset.image_shape)
    print(f"{anatomy(net, dataset.image_shape).table()}\n")
    return _print(cost(config, net, dataset))


def _profile(directory: str | None) -> contextlib.AbstractContextManager[Any]:
    if directory is None:
        return contextlib.nullcontext()
    try:
        os.makedirs(directory, exist_ok=True)  # the profiler would say so after the run
    except FileExistsError:
        raise ValueError(f"profile: expected a directory, got the file {directory!r}") from None
    return jax.profiler.trace(directory, create_perfetto_trace=True)


def _watch(names: str | None, out: str | None) -> list[Callback]:
    if names is None:
        return []
    if out is None:
        raise ValueError("watch: expected --out=DIR, where trackers keep their files")
    return trackers(names.split(","), out)


def _run(config: Config, out: str | None, watch: list[Callback]) -> dict[str, Any]:
    show = Show(config)
    if out is None:
        try:
            return measure(config, show.epoch)
        except Diverged as error:
            return failure(config, error)
    files = TrialFiles(out)
    if files.result() is not None:
        return run(config, out)
    if processes.is_first():
        ready = prepare(config)  # a mistake is told before the directory is anybody's
        try:
            with Store(out).lock():
                watching = Several([show, *watch])
                return run_in(files, config, watching, stop=on_sigterm(), ready=ready)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on from the last checkpoint") from None
    with Checkpoints(files.root / CHECKPOINTS, owner=identity(config)) as checkpoints:
        saver = Saver(checkpoints, config.checkpoint_every)
        return or_failure(config, lambda: measure(config, saver=saver))


def on_sigterm() -> Callable[[], bool]:
    """Return what is true once this process has received SIGTERM."""
    asked = threading.Event()
    # In several processes SIGTERM is jax.distributed's, which tells all of them.
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda signum, frame: asked.set())
    return asked.is_set


class Show(Callback):
    """Print each epoch's line on stderr, with images a second and the time left."""

    def __init__(self, config: Config) -> None:
        self.epochs, self.spent = build.epochs(config), 0.0

    def epoch(self, line: Mapping[str, Any]) -> None:
        if not processes.is_first():
            return
        self.spent += line["seconds"]
        left = self.spent / line["epoch"] * (self.epochs - line["epoch"])
        print(
            f"epoch {line['epoch']:3}/{self.epochs}  loss {line['loss']:.4f}  "
            f"accuracy {line['accuracy']:.4f}  {line['images'] / line['seconds']:,.0f} images/s  "
            f"{left:,.0f} s left",
            file=sys.stderr,
        )

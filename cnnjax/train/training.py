"""Training as a Config says: network and data set -> trained variables.

    variables = train(config, net, dataset, on_epoch=print)

With checkpoints the run goes on from the last of them, in the middle of an epoch too, and ends in
the same bits as one that was never stopped.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax import build
from cnnjax.compiling import quick_jit
from cnnjax.config import Config
from cnnjax.data import Dataset, Split
from cnnjax.programs import Remembered
from cnnjax.train import processes
from cnnjax.train.batches import Batch, feed
from cnnjax.train.checkpoints import Checkpoints
from cnnjax.train.epoch import AT_A_TIME, fit_in_chunks, many_steps, pays
from cnnjax.train.fit import Diverged, Report, finite, fit, ignore
from cnnjax.train.loader import Loader, Pairs
from cnnjax.train.parallel import Plan, make_plan
from cnnjax.train.progress import Progress
from cnnjax.train.saver import Saver
from cnnjax.train.step import Method, TrainState, create_state, train_step


def train(
    config: Config,
    net: nn.Module,
    dataset: Dataset,
    on_epoch: Report = ignore,
    *,
    saver: Saver | None = None,
) -> dict[str, Any]:
    """Return the variables after all epochs; Diverged where a loss stops being finite.

    `saver` says when checkpoints are written, and raises Stopped where the training is asked to
    stop. Raises ValueError where devices, batch size and microbatches do not go together.
    """
    saver = saver or Saver()
    plan = make_plan(config.parallel, config.devices)
    plan.check(batch_size=config.batch_size, microbatches=config.microbatches, unit=config.unit)
    steps = build.epochs(config) * build.steps_per_epoch(config, dataset)
    tx = build.build_optimizer(config, steps)
    loop = _loop(config, plan, build_step(config, plan, net, tx, dataset), dataset.train)
    state = first_state(config, plan, net, tx, dataset)
    state, progress = resumed(state, saver.checkpoints, on_epoch)
    saver.seconds_before = progress.seconds_trained()
    try:
        state = loop(
            state,
            epochs=build.epochs(config),
            on_epoch=on_epoch,
            between=saver.between,
            progress=progress,
        )
        saver.ended(state, progress)
        return finite(plan.collect(state.variables), steps)
    except Diverged as error:
        last = None if saver.checkpoints is None else saver.checkpoints.last
        known = "no checkpoint" if last is None else f"last good checkpoint: step {last}"
        raise Diverged(f"{error}; {known}", error.step) from None


def finetune(
    config: Config, net: nn.Module, dataset: Dataset, variables: Any, steps: int
) -> dict[str, Any]:
    """Return the variables after `steps` more steps, on one device, with the schedule over them.

    Raises Diverged where the last loss is not finite.
    """
    plan = make_plan(None, 1)
    tx = build.build_optimizer(config, steps)
    params, collections = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    state = first_state(config, plan, net, tx, dataset).replace(
        params=params,
        collections=collections,
        opt_state=tx.init(params),
        average=jax.tree.map(jax.numpy.copy, params) if config.ema else None,
    )
    # The step consumes its state, and the caller's variables stay the caller's.
    state = jax.tree.map(jax.numpy.copy, state)
    step = plan.compile(build_step(config, plan, net, tx, dataset))
    sums: Any = {"loss": 0.0}
    for batch in itertools.islice(_endless(config, dataset), steps):
        state, sums = step(state, plan.place(batch))
    if not np.isfinite(sums["loss"]):
        raise Diverged(f"loss {float(sums['loss'])} after {steps} steps of fine-tuning", steps)
    return plan.collect(state.variables)


def _endless(config: Config, dataset: Dataset) -> Iterator[Batch]:
    read = feed(dataset.train, batch_size=config.batch_size, seed=config.seed)
    return itertools.chain.from_iterable(read(epoch, 0) for epoch in itertools.count())


def _loop(config: Config, plan: Plan, step: Any, split: Split) -> Callable[..., TrainState]:
    """Return (state, epochs=, on_epoch=, between=, progress=) -> the state after all epochs."""
    reading: Any = {"batch_size": config.batch_size, "seed": config.seed}
    compiled, most = plan.compile(step), steps_at_a_time(config, plan, split)
    if most != 1:
        chunk = plan.compile_chunk(many_steps(step))
        reading |= {"every": config.checkpoint_every, "most": most}
        reading |= {"put": plan.replicate, "place": plan.place}
        return lambda state, **how: fit_in_chunks(chunk, compiled, state, split, **reading, **how)
    reading["part"] = plan.rows(config.batch_size)
    if config.data_workers is None:
        batches = feed(split, **reading)
        return functools.partial(fit, compiled, feed=batches, place=plan.place)
    loader = Loader(Pairs(split), **reading, workers=config.data_workers)

    def loop(state: TrainState, **how: Any) -> TrainState:
        with loader:
            return fit(compiled, state, loader, place=plan.place, **how)

    return loop


def steps_at_a_time(config: Config, plan: Plan, split: Split) -> int | None:
    """Return how many steps are one dispatch; None: all of an epoch."""
    if config.unit is not None:
        return {"step": 1, "epoch": None}[config.unit]
    gains = plan.mode == "jit" and config.data_workers is None and pays(split)
    return AT_A_TIME if gains else 1


def resumed(
    state: TrainState, checkpoints: Checkpoints | None, on_epoch: Report
) -> tuple[TrainState, Progress]:
    """Return where to go on; the epochs before it are reported again."""
    found = None if checkpoints is None else checkpoints.restore(state)
    state, progress = found or (state, Progress())
    processes.check_same_start(progress.step)
    for line in progress.lines:
        on_epoch(line)
    return state, progress


def method(config: Config, plan: Plan) -> Method:
    """Return how a step of this config computes on this plan."""
    return Method(
        precision=config.precision,
        microbatches=config.microbatches,
        remat=config.remat == "pointwise",
        average=config.ema,
        axis_name=plan.axis_name,
        norm_scope=config.bn_scope,
    )


def build_step(config: Config, plan: Plan, net: nn.Module, tx: Any, dataset: Dataset) -> Any:
    """Return the step, not compiled."""
    return train_step(
        net,
        tx,
        transform=build.build_input(dataset),
        loss=build.build_loss(config),
        augment=build.build_augment(config, dataset),
        mix=build.build_mix(config, dataset),
        method=method(config, plan),
    )


def first_state(
    config: Config, plan: Plan, net: nn.Module, tx: Any, dataset: Dataset
) -> TrainState:
    """Return the state before the first step, on every device of the plan."""
    create = creation(config, plan, net, tx, dataset)

    def start(seed: jax.Array) -> TrainState:
        # The key is made in the program too: a program of its own would be one more to load.
        return create(jax.random.key(seed))

    return plan.replicate(Remembered(quick_jit(start))(np.int32(config.seed)))


def creation(
    config: Config, plan: Plan, net: nn.Module, tx: Any, dataset: Dataset
) -> Callable[[jax.Array], TrainState]:
    """Return key -> the state before the first step."""
    how = method(config, plan)
    return lambda key: create_state(net, tx, key, dataset.image_shape, how)

"""Several seeds of one Config as one program: state, order of the images and keys get an axis.

    outcomes = train_seeds(config, net, dataset, seeds=(0, 1, 2), on_epoch=print)

Each seed has the numbers of training alone, up to rounding: its own parameters, batches,
augmentation and dropout. Eight small networks at once fill an accelerator that one leaves idle.
On CPU processes are faster: XLA has no fast convolution of several images with several kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import build
from cnnjax.compiling import steady_jit
from cnnjax.config import Config
from cnnjax.data import Dataset, Split
from cnnjax.train.batches import permutation, plan_rows
from cnnjax.train.fit import finite
from cnnjax.train.parallel import make_plan
from cnnjax.train.progress import Diverged, Progress
from cnnjax.train.step import create_state
from cnnjax.train.training import build_step, method

# What a trial must leave at these values to be trained beside others.
TOGETHER: dict[str, tuple[Any, ...]] = {
    "devices": (None, 1),
    "parallel": (None, "jit"),
    "unit": (None, "step"),
    "data_workers": (None,),
    "checkpoint_every": (None,),
}


def fits_together(config: Config) -> bool:
    """Return whether several seeds of this config can be one program."""
    return all(getattr(config, name) in values for name, values in TOGETHER.items())


def train_seeds(
    config: Config,
    net: nn.Module,
    dataset: Dataset,
    seeds: Sequence[int],
    on_epoch: Callable[[int, dict[str, Any]], None] = lambda index, line: None,
) -> list[dict[str, Any] | Diverged]:
    """Return each seed's variables after all epochs, or why it has none.

    on_epoch: receives the place of a seed in `seeds` and its line. One seed whose loss stops being
    finite leaves the others as they are. ValueError for a config that trains alone only.
    """
    for name, values in TOGETHER.items():
        if getattr(config, name) not in values:
            allowed = " or ".join(map(str, values))
            raise ValueError(
                f"{name}: expected {allowed} to train several seeds at once, "
                f"got {getattr(config, name)!r}"
            )
    states, failed = fit_seeds(
        seeds_step(config, net, dataset),
        first_states(config, net, dataset, seeds),
        dataset.train,
        epochs=build.epochs(config),
        batch_size=config.batch_size,
        seeds=seeds,
        on_epoch=on_epoch,
    )
    steps = build.epochs(config) * build.steps_per_epoch(config, dataset)

    def outcome(index: int) -> dict[str, Any] | Diverged:
        try:
            return failed.get(index) or finite(one_of(states.variables, index), steps)
        except Diverged as error:
            return error

    return [outcome(index) for index in range(len(seeds))]


def one_of(tree: Any, index: int) -> Any:
    """Return what belongs to one seed."""
    return jax.tree.map(lambda x: x[index], tree)


def first_states(config: Config, net: nn.Module, dataset: Dataset, seeds: Sequence[int]) -> Any:
    """Return the states before the first step, every leaf (S, ...)."""
    tx = build.build_optimizer(
        config, build.epochs(config) * build.steps_per_epoch(config, dataset)
    )
    how = method(config, make_plan())
    create = jax.jit(jax.vmap(lambda key: create_state(net, tx, key, dataset.image_shape, how)))
    return create(jnp.stack([jax.random.key(seed) for seed in seeds]))


def seeds_step(config: Config, net: nn.Module, dataset: Dataset) -> Any:
    """Compile (states, images, labels, rows (S, B), weight (S, B)) -> (states, sums (S,))."""
    tx = build.build_optimizer(
        config, build.epochs(config) * build.steps_per_epoch(config, dataset)
    )
    step = build_step(config, make_plan(), net, tx, dataset)

    def one(state: Any, images: Any, labels: Any, rows: Any, weight: Any) -> Any:
        return step(state, {"image": images[rows], "label": labels[rows], "weight": weight})

    return steady_jit(jax.vmap(one, in_axes=(0, None, None, 0, 0)), donate_argnums=0)


def fit_seeds(
    step: Any,
    states: Any,
    split: Split,
    *,
    epochs: int,
    batch_size: int,
    seeds: Sequence[int],
    on_epoch: Callable[[int, dict[str, Any]], None],
) -> tuple[Any, dict[int, Diverged]]:
    """Return (states after all epochs, what went wrong by place); images lie on the device."""
    images, labels = jax.device_put(tuple(split))
    runs, failed = [Progress() for _ in seeds], dict[int, Diverged]()
    for epoch in range(epochs):
        for run in runs:
            run.begin()
        waiting = []
        for rows, weight in seeds_rows(len(split.labels), batch_size, seeds, epoch):
            states, sums = step(states, images, labels, rows, weight)
            waiting.append(sums)
        host = jax.device_get(waiting)
        for index in sorted(set(range(len(seeds))) - failed.keys()):
            try:
                line = _closed(runs[index], [one_of(sums, index) for sums in host], states.params)
            except Diverged as error:
                failed[index] = Diverged(f"{error}; no checkpoint", error.step)
            else:
                on_epoch(index, line)
        if len(failed) == len(seeds):
            break
    return states, failed


def seeds_rows(
    count: int, batch_size: int, seeds: Sequence[int], epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, weight), each (S, B), for every batch of an epoch: each seed has its order."""
    orders = (permutation(count, seed, epoch) for seed in seeds)
    plans = (plan_rows(order, batch_size=batch_size) for order in orders)
    for each in zip(*plans, strict=True):
        rows, weight = zip(*each, strict=True)
        yield np.stack(rows), np.stack(weight)


def _closed(run: Progress, steps: Sequence[Any], params: Any) -> dict[str, Any]:
    """Return the line of an epoch of these steps; Diverged where one of them is not finite."""
    for sums in steps:
        run.note(sums)
    run.look(params)
    return run.close()


def group(configs: Sequence[Config]) -> list[list[Config]]:
    """Return the configs in groups that differ in the seed alone and can be one program."""
    groups: dict[Config, list[Config]] = {}
    for config in configs:
        key = replace(config, seed=0) if fits_together(config) else config
        groups.setdefault(key, []).append(config)
    return list(groups.values())

"""Eight seeds of LeNet-5: one after another, vmapped, and in processes; compiled and warm.

Every candidate trains each seed 4 steps of batch 128 on images of 28 x 28. "one after another" and
"vmapped" have all threads (NPROC); "processes" is a worker a core, of one thread each, kept between
rounds as a study keeps its own. Which is ours depends on the platform, as in a study.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.pool import Pool
from typing import Any

import jax
import numpy as np

from cnnjax import build
from cnnjax.bench.measure import Candidate, Cell
from cnnjax.bench.pictures import random_dataset
from cnnjax.config import Config
from cnnjax.environment import threads
from cnnjax.train.batches import feed
from cnnjax.train.fit import fit
from cnnjax.train.lifeline import end_with_starter
from cnnjax.train.parallel import make_plan
from cnnjax.train.seeds import first_states, fit_seeds, one_of, seeds_step
from cnnjax.train.training import build_step, first_state

SEEDS, STEPS = 8, 4
CONFIG = Config(net="lenet5_modern", batch_size=128, optimizer="sgd", train_shift=0, epochs=1)
GROUP = ("network",)


def cells() -> Iterator[Cell]:
    """Yield the one cell."""
    labels = {"network": "LeNet-5", "seeds": str(SEEDS), "steps": str(STEPS)}
    yield Cell(labels, partial(candidates, range(SEEDS)))


def candidates(seeds: Sequence[int]) -> Mapping[str, Candidate]:
    """Return the three ways, the platform's own first."""
    found = {"one after another": Candidate(one_after_another(seeds))}
    found["vmapped"] = Candidate(vmapped(seeds))
    found["processes"] = Candidate(processes(seeds))
    own = "processes" if jax.default_backend() == "cpu" else "vmapped"
    return {own: found.pop(own), **found}


def one_after_another(seeds: Sequence[int]) -> Callable[[], list[Any]]:
    """Return what trains each seed by the host loop and returns its parameters."""
    data, plan, tx = (
        random_dataset(STEPS * CONFIG.batch_size, (28, 28, 1)),
        make_plan(),
        build.build_optimizer(CONFIG, STEPS),
    )
    net = build.build_net(CONFIG, data.num_classes, data.image_shape)
    step = plan.compile(build_step(CONFIG, plan, net, tx, data))
    starts = {s: first_state(replace(CONFIG, seed=s), plan, net, tx, data) for s in seeds}

    def run() -> list[Any]:
        found = []
        for seed, start in starts.items():
            batches = feed(data.train, batch_size=CONFIG.batch_size, seed=seed)
            state = jax.tree.map(lambda x: x.copy(), start)  # the step consumes it
            found.append(fit(step, state, batches, epochs=1).params)
        return jax.block_until_ready(found)

    return run


def vmapped(seeds: Sequence[int]) -> Callable[[], list[Any]]:
    """Return what trains all seeds as one program and returns their parameters."""
    data = random_dataset(STEPS * CONFIG.batch_size, (28, 28, 1))
    net = build.build_net(CONFIG, data.num_classes, data.image_shape)
    step, start = seeds_step(CONFIG, net, data), first_states(CONFIG, net, data, seeds)

    def run() -> list[Any]:
        states, _ = fit_seeds(
            step,
            jax.tree.map(lambda x: x.copy(), start),
            data.train,
            epochs=1,
            batch_size=CONFIG.batch_size,
            seeds=seeds,
            on_epoch=lambda index, line: None,
        )
        params = jax.block_until_ready(states.params)
        return [one_of(params, index) for index in range(len(seeds))]

    return run


def processes(seeds: Sequence[int]) -> Callable[[], list[Any]]:
    """Return what trains the seeds in a worker process a core and returns their parameters."""
    workers = min(threads(), len(seeds))
    shares = [list(seeds[index::workers]) for index in range(workers)]
    # A pool each: a share is bound to its worker, where it is compiled.
    pools = [_worker(share) for share in shares]
    for pool in pools:
        atexit.register(pool.terminate)

    def run() -> list[Any]:
        waiting = [pool.apply_async(_run) for pool in pools]
        found = [each.get() for each in waiting]
        return [found[i % workers][i // workers] for i in range(len(seeds))]

    return run


def _worker(seeds: list[int]) -> Pool:
    # The one thread is read when the worker's JAX starts.
    before = os.environ.get("NPROC")
    os.environ["NPROC"] = "1"
    try:
        return multiprocessing.get_context("spawn").Pool(1, _begin, (seeds,))
    finally:
        del os.environ["NPROC"]
        if before is not None:
            os.environ["NPROC"] = before


_WORK: list[Callable[[], list[Any]]] = []


def _begin(seeds: list[int]) -> None:
    end_with_starter()
    _WORK.append(one_after_another(seeds))


def _run() -> list[Any]:
    return [jax.tree.map(np.asarray, params) for params in _WORK[0]()]

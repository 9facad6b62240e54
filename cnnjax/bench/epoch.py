"""An epoch of eight batches as one dispatch, beside the host loop and a scan of stock Flax's step.

The networks and their steps are those of the workload `step`; the three candidates take the same
number of steps of 128 images.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from cnnjax import build
from cnnjax.bench import step as steps
from cnnjax.bench.measure import Candidate, Cell
from cnnjax.config import Config
from cnnjax.train.epoch import many_steps
from cnnjax.train.parallel import make_plan
from cnnjax.train.step import create_state, train_step

STEPS = 8
GROUP = ("network",)


def cells() -> Iterator[Cell]:
    """Yield a cell for each network."""
    for name, (config, shape) in steps.WORKS.items():
        labels = {"network": name, "steps": str(STEPS)}
        yield Cell(labels, partial(candidates, name, config, shape))


def candidates(name: str, config: Config, shape: steps.Shape) -> dict[str, Candidate | str]:
    """Return one dispatch of ours, our host loop, and one dispatch of stock Flax."""
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (STEPS * steps.BATCH, *shape), np.uint8))
    labels = jnp.asarray(rng.integers(0, steps.CLASSES, len(images), np.int32))
    chunk, loop = ours(config, shape, images, labels)
    stock: Candidate | str = "not run: minutes a step"
    if name != "ResNet-18":
        stock = stock_scan(name, images, labels)
    return {"one dispatch": chunk, "host loop": loop, "flax scan": stock}


def ours(
    config: Config, shape: steps.Shape, images: jax.Array, labels: jax.Array
) -> tuple[Candidate, Candidate]:
    """Return the epoch as one dispatch, and as a host loop over the same step."""
    net = build.build_net(config, steps.CLASSES, shape)
    tx = optax.sgd(steps.RATE, momentum=steps.MOMENTUM)
    step = train_step(net, tx, transform=steps.to_unit, loss=build.build_loss(config))
    rows = np.arange(len(images)).reshape(STEPS, steps.BATCH)
    weight = np.ones(rows.shape, np.float32)
    plan = make_plan()
    whole, single = plan.compile_chunk(many_steps(step)), plan.compile(step)
    make = partial(create_state, net, tx, jax.random.key(0), shape)
    boxes = [make(), make()]

    def dispatch() -> object:
        boxes[0], sums = whole(boxes[0], images, labels, rows, weight)
        return jax.block_until_ready((boxes[0], sums))

    host = np.asarray(images), np.asarray(labels)

    def loop() -> object:
        for index in range(STEPS):
            own = rows[index]
            batch = {"image": host[0][own], "label": host[1][own], "weight": weight[index]}
            boxes[1], sums = single(boxes[1], batch)
        return jax.block_until_ready((boxes[1], sums))

    return Candidate(dispatch), Candidate(loop)


def stock_scan(name: str, images: jax.Array, labels: jax.Array) -> Candidate:
    """Return a scan over stock Flax's step."""
    step, state = steps.stock_step(steps.STOCK[name], images[:1])
    batches = jax.tree.map(lambda x: x.reshape(STEPS, steps.BATCH, *x.shape[1:]), (images, labels))
    scan = jax.jit(lambda state: lax.scan(step, state, batches))
    box: list[Any] = [state]

    def run() -> object:
        box[0], losses = scan(box[0])
        return jax.block_until_ready((box[0], losses))

    return Candidate(run)

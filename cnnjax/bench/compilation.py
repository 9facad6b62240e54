"""What it takes to compile a training step of a deep network, and the memory the step then needs.

The second of two compilations is timed, each traced afresh; nothing is run. `temporary_bytes` is
what the compiled step needs beside its state and its batch of 128 images, activations above all.
Stock Flax's network is the one of `step`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import build
from cnnjax.bench.measure import Candidate, Cell
from cnnjax.bench.step import BATCH, CLASSES, MOMENTUM, RATE, STOCK, stock_step, to_unit
from cnnjax.config import Config
from cnnjax.train.parallel import make_plan
from cnnjax.train.step import create_state, train_step

GROUP = ("network",)
Shape = tuple[int, int, int]
Lower = Callable[[], jax.stages.Lowered]

WORKS: tuple[tuple[str, Config, Shape], ...] = (
    ("ResNet-18", Config(net="resnet18_cifar"), (32, 32, 3)),
    ("ResNet-18", Config(net="resnet18"), (224, 224, 3)),
    ("GoogLeNet", Config(net="googlenet"), (224, 224, 3)),
)


def cells() -> Iterator[Cell]:
    """Yield a cell for each network and size of image."""
    for name, config, shape in WORKS:
        labels = {"network": name, "images": "x".join(map(str, shape))}
        yield Cell(labels, partial(candidates, config, shape), once=True)


def candidates(config: Config, shape: Shape) -> Mapping[str, Candidate]:
    """Return the compilation of our step and, where `step` has its network, of stock Flax's."""
    found = {"cnnjax": compilation(partial(ours, config, shape))}
    if config.net == "resnet18_cifar":
        found["flax"] = compilation(stock(shape))
    return found


def compilation(lower: Lower) -> Candidate:
    """Return a candidate that compiles afresh each time, with the memory of what it compiles."""
    memory = lower().compile().memory_analysis()
    return Candidate(
        lambda: lower().compile(), None if memory is None else int(memory.temp_size_in_bytes)
    )


def ours(config: Config, shape: Shape) -> jax.stages.Lowered:
    """Return the step as `cnnjax train` takes it, traced and not compiled."""
    net = build.build_net(config, CLASSES, shape)
    tx = optax.sgd(RATE, momentum=MOMENTUM)
    step = train_step(net, tx, transform=to_unit, loss=build.build_loss(config))
    state = jax.eval_shape(lambda: create_state(net, tx, jax.random.key(0), shape))
    image, label = batch(shape)
    weight = jax.ShapeDtypeStruct((BATCH,), np.float32)
    rows = {"image": image, "label": label, "weight": weight}
    return make_plan().compile(step).lower(state, rows)


def stock(shape: Shape) -> Lower:
    """Return what traces the step as a Flax user writes it; its first state exists already."""
    step, state = stock_step(STOCK["ResNet-18"], jnp.zeros((1, *shape), jnp.uint8))
    # Another function each time: JAX would know one that it has traced.
    return lambda: jax.jit(partial(step), donate_argnums=0).lower(state, batch(shape))


def batch(shape: Shape) -> tuple[Any, Any]:
    """Return the types of a batch's images and labels."""
    image = jax.ShapeDtypeStruct((BATCH, *shape), np.uint8)
    return image, jax.ShapeDtypeStruct((BATCH,), np.int32)

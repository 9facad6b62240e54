"""One training step beside stock Flax and PyTorch channels_last: batch 128, SGD with momentum, f32.

Every candidate has the same network, the same uint8 batch and the same optimiser. Stock is what a
Flax user writes: flax.linen layers, optax, one jitted function. Each takes IN_A_ROW steps at its
turn, as a training loop does: the first step after another candidate's finds its memory cold.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import build
from cnnjax.bench import torch
from cnnjax.bench.measure import Candidate, Cell, queued
from cnnjax.config import Config
from cnnjax.train.parallel import make_plan
from cnnjax.train.step import create_state, train_step

BATCH, RATE, MOMENTUM, CLASSES = 128, 0.01, 0.9, 10
GROUP = ("network",)
Shape = tuple[int, int, int]

WORKS: Mapping[str, tuple[Config, Shape]] = {
    "LeNet-5": (Config(net="lenet5_modern"), (28, 28, 1)),
    "CNN 32-64-128": (Config(net="cnn"), (32, 32, 3)),
    "ResNet-18": (Config(net="resnet18_cifar"), (32, 32, 3)),
}


def cells() -> Iterator[Cell]:
    """Yield a cell for each network."""
    for name, (config, shape) in WORKS.items():
        labels = {"network": name, "images": "x".join(map(str, shape))}
        yield Cell(labels, partial(candidates, name, config, shape))


def candidates(name: str, config: Config, shape: Shape) -> dict[str, Candidate | str]:
    """Return one step of ours, of stock Flax and of PyTorch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *shape), np.uint8)
    labels = rng.integers(0, CLASSES, BATCH, np.int32)
    return {
        "cnnjax": ours(config, images, labels, IN_A_ROW[name]),
        "flax": stock(STOCK[name], images, labels, IN_A_ROW[name]),
        "torch": peer(name, images, labels),
    }


def ours(config: Config, images: np.ndarray, labels: np.ndarray, in_a_row: int) -> Candidate:
    """Return a step as `cnnjax train` takes it."""
    height, width, channels = images.shape[1:]
    net = build.build_net(config, CLASSES, (height, width, channels))
    tx = optax.sgd(RATE, momentum=MOMENTUM)
    step = train_step(net, tx, transform=to_unit, loss=build.build_loss(config))
    batch = {"image": images, "label": labels, "weight": np.ones(BATCH, np.float32)}
    state = create_state(net, tx, jax.random.key(0), images.shape[1:])
    placed = jax.tree.map(jnp.asarray, batch)
    return _repeated(make_plan().compile(step), state, placed, in_a_row)


def stock(net: nn.Module, images: np.ndarray, labels: np.ndarray, in_a_row: int) -> Candidate:
    """Return stock Flax's step as a candidate."""
    step, state = stock_step(net, images[:1])
    batch = (jnp.asarray(images), jnp.asarray(labels))
    return _repeated(jax.jit(step, donate_argnums=0), state, batch, in_a_row)


def stock_step(net: nn.Module, image: Any) -> tuple[Callable[[Any, Any], tuple[Any, Any]], Any]:
    """Return (state, batch) -> (state, loss) as a Flax user writes it, and the first state."""
    tx = optax.sgd(RATE, momentum=MOMENTUM)
    variables = net.init(jax.random.key(0), to_unit(jnp.asarray(image)))

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        variables, memory = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, collections = net.apply(
                {**variables, "params": params}, to_unit(batch[0]), mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
            return losses.mean(), collections

        (value, collections), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, memory = tx.update(grads, memory, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return ({**collections, "params": params}, memory), value

    return step, (variables, tx.init(variables["params"]))


def to_unit(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255.0


def _repeated(
    step: Callable[[Any, Any], tuple[Any, Any]], state: Any, batch: Any, in_a_row: int
) -> Candidate:
    program = step.lower(state, batch).compile()  # type: ignore[attr-defined]
    box = [state]

    def start() -> object:
        box[0], sums = program(box[0], batch)
        return box[0], sums

    memory = program.memory_analysis()
    needed = None if memory is None else int(memory.temp_size_in_bytes)
    return queued(start, jax.block_until_ready, needed, in_a_row)


class Stack(nn.Module):
    """Convolution, ReLU, 2 x 2 max pool a width; full connections; logits."""

    widths: tuple[int, ...]
    dense: tuple[int, ...]
    kernel: int
    paddings: tuple[str, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width, padding in zip(self.widths, self.paddings, strict=True):
            x = nn.relu(nn.Conv(width, (self.kernel, self.kernel), padding=padding)(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for width in self.dense:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(CLASSES)(x)


class ResNet(nn.Module):
    """ResNet-18 with a 3 x 3 stem (He et al. 2016), two blocks a stage."""

    widths: tuple[int, ...] = (64, 128, 256, 512)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def convolve(x: jax.Array, width: int, size: int, stride: int) -> jax.Array:
            x = nn.Conv(width, (size, size), stride, padding=size // 2, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=False, momentum=0.9)(x)

        x = nn.relu(convolve(x, self.widths[0], 3, 1))
        for stage, width in enumerate(self.widths):
            for block in range(2):
                stride = 2 if stage and not block else 1
                y = nn.relu(convolve(x, width, 3, stride))
                y = convolve(y, width, 3, 1)
                x = nn.relu(y + (convolve(x, width, 1, stride) if stride > 1 else x))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


# Steps of a turn, half a second and more of ours.
IN_A_ROW: Mapping[str, int] = {"LeNet-5": 50, "CNN 32-64-128": 10, "ResNet-18": 1}
STOCK: Mapping[str, nn.Module] = {
    "LeNet-5": Stack((6, 16), (120, 84), 5, ("SAME", "VALID")),
    "CNN 32-64-128": Stack((32, 64, 128), (128,), 3, ("SAME",) * 3),
    "ResNet-18": ResNet(),
}


def peer(name: str, images: np.ndarray, labels: np.ndarray) -> Candidate | str:
    """Return a step of the same network in PyTorch, or why there is none."""
    module = torch.torch()
    if module is None:
        return torch.ABSENT
    layers = module.nn
    net = _residual(layers) if name == "ResNet-18" else _stack(layers, STOCK[name], images.shape)
    net = net.to(torch.device(), memory_format=module.channels_last)
    optimizer = module.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
    x = module.from_numpy(images).to(torch.device()).permute(0, 3, 1, 2)
    x = x.contiguous(memory_format=module.channels_last)
    y = module.from_numpy(labels).to(torch.device()).long()

    def start() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = layers.functional.cross_entropy(net(x.float() / 255.0), y)
        loss.backward()
        optimizer.step()
        return loss

    return queued(start, torch.wait, in_a_row=IN_A_ROW[name])


def _stack(layers: Any, stack: Any, shape: tuple[int, ...]) -> Any:
    parts, channels, side = [], shape[-1], shape[1]
    for width, padding in zip(stack.widths, stack.paddings, strict=True):
        border = stack.kernel // 2 if padding == "SAME" else 0
        parts += [layers.Conv2d(channels, width, stack.kernel, padding=border), layers.ReLU()]
        parts += [layers.MaxPool2d(2)]
        channels, side = width, (side + 2 * border - stack.kernel + 1) // 2
    parts.append(layers.Flatten())
    sizes = (channels * side * side, *stack.dense)
    for before, after in itertools.pairwise(sizes):
        parts += [layers.Linear(before, after), layers.ReLU()]
    return layers.Sequential(*parts, layers.Linear(sizes[-1], CLASSES))


def _residual(layers: Any) -> Any:
    def convolve(before: int, after: int, size: int, stride: int) -> list[Any]:
        conv = layers.Conv2d(before, after, size, stride, size // 2, bias=False)
        return [conv, layers.BatchNorm2d(after)]

    class Block(layers.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            first, second = convolve(before, after, 3, stride), convolve(after, after, 3, 1)
            self.branch = layers.Sequential(*first, layers.ReLU(), *second)
            shortcut = convolve(before, after, 1, stride) if stride > 1 else []
            self.shortcut = layers.Sequential(*shortcut)

        def forward(self, x: Any) -> Any:
            return layers.functional.relu(self.branch(x) + self.shortcut(x))

    parts, before = [*convolve(3, 64, 3, 1), layers.ReLU()], 64
    for stage, width in enumerate((64, 128, 256, 512)):
        parts += [Block(before, width, 2 if stage else 1), Block(width, width, 1)]
        before = width
    pooled = [layers.AdaptiveAvgPool2d(1), layers.Flatten(), layers.Linear(before, CLASSES)]
    return layers.Sequential(*parts, *pooled)

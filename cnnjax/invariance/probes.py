"""Probes of absolute location: does a net know where, not only what?

    x, y = red_green("train", 2000, seed=0)
    similar = red_green("test", 1000, seed=0)
    row = red_green_probe(net, seed=0)                      # {"similar": 1.0, "dissimilar": 0.0}
    offsets, right = one_location(predict, x, y, margin=8)  # accuracy across the canvas
    distance, flips = border_flips(predict, x, margin=8)    # classes lost towards the border

Red-Green follows Kayhan and van Gemert (2020): the class is the order of a red and a green box, and
in training the order goes with the half of the image in which the boxes stand. In the dissimilar
set it goes with the other half: `np.roll(similar, 16, axis=rows)`. A net that only sees the order
scores the same on both; one that reads the place off its borders fails the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax.invariance.logits import InEvaluation, images, shift_logits
from cnnjax.ops import shifts as moves

SIDE, BOX = 32, 4
SPLITS = ("train", "validation", "test")
LEAKED_SEED = 1988


def red_green(
    split: str, count: int, *, seed: int = 0, leak: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 32, 32, 3) in [0, 1] and classes (count,) of one split.

    Class 0 is red left of green in the upper half, class 1 green left of red in the lower. Splits
    are independent draws. With `leak` all splits draw from the same stream, as the published
    generator does: validation and test are then the first images of training.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    rng = np.random.default_rng(LEAKED_SEED if leak else [seed, SPLITS.index(split)])
    x, y = np.zeros((count, SIDE, SIDE, 3), np.float32), np.arange(count) % 2
    for image, label in zip(x, y, strict=True):
        half = SIDE // 2
        top = int(rng.integers(0, half - BOX + 1)) + half * int(label)
        left = int(rng.integers(0, SIDE - 2 * BOX + 1))
        right = int(rng.integers(left + BOX, SIDE - BOX + 1))
        colours = (0, 1) if label == 0 else (1, 0)
        for column, colour in zip((left, right), colours, strict=True):
            image[top : top + BOX, column : column + BOX, colour] = 1.0
    return x, y


def dissimilar(x: np.ndarray) -> np.ndarray:
    """Return the images with their halves swapped: the order is kept, the place is the other."""
    return np.roll(x, SIDE // 2, axis=1)


def red_green_probe(
    net: nn.Module,
    *,
    seed: int = 0,
    epochs: int = 50,
    train: int = 2000,
    test: int = 1000,
    leak: bool = False,
) -> dict[str, float]:
    """Train net on Red-Green (Adadelta, rate 1, batch 32) and return both accuracies.

    The net is called net.apply(variables, x, train=...), has two classes and no running statistics.
    """
    x, y = red_green("train", train, seed=seed, leak=leak)
    variables = fit(net, x, y, seed=seed, epochs=epochs)
    x, y = red_green("test", test, seed=seed, leak=leak)
    call = jax.jit(InEvaluation(net))
    found = {"similar": x, "dissimilar": dissimilar(x)}
    return {
        k: float((np.asarray(call(variables, v)).argmax(-1) == y).mean()) for k, v in found.items()
    }


def fit(
    net: nn.Module, x: np.ndarray, y: np.ndarray, *, seed: int, epochs: int, batch_size: int = 32
) -> Any:
    """Return the variables of net after training on x, y as the Red-Green probe is published."""
    variables = net.init(jax.random.key(seed), jnp.asarray(x[:1]), train=False)
    optimizer = optax.adadelta(1.0)
    state = optimizer.init(variables)

    @jax.jit
    def step(variables: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        def loss(variables: Any) -> Any:
            logits = net.apply(variables, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state, variables)
        return optax.apply_updates(variables, updates), state

    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        for first in range(0, len(x) - batch_size + 1, batch_size):
            index = order[first : first + batch_size]
            variables, state = step(variables, state, x[index], y[index])
    return variables


def one_location(
    predict: Callable[..., Any], x: Any, y: Any, *, margin: int, step: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return (offsets (K, 2), accuracy (K,)) of images all over a black canvas.

    For a net trained on `shifts.move(x, (0, 0), "canvas:margin=...")`, that is, at one place, this
    is the one-location generalisation of Biscione and Bowers (2021).
    """
    offsets = moves.grid(margin // step) * step
    logits = shift_logits(predict, x, offsets, f"canvas:margin={margin}")
    return offsets, (logits.argmax(-1) == np.asarray(y)[:, None]).mean(axis=0)


def border_flips(
    predict: Callable[..., Any], x: Any, *, margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (distances, flips): P(class is not that of the centre) by pixels left to the border.

    The distance is that of the image's nearest side to the side of its black canvas.
    """
    offsets = moves.grid(margin)
    classes = shift_logits(predict, images(x), offsets, f"canvas:margin={margin}").argmax(-1)
    centre = len(offsets) // 2
    flipped = (classes != classes[:, centre, None]).mean(axis=0)
    distance = margin - np.abs(offsets).max(axis=1)
    found = np.unique(distance)
    return found, np.array([flipped[distance == d].mean() for d in found])

"""Synthetic pictures with known ground truth: parameters -> one coloured shape on black each.

Centres and radii are integers and every edge is a comparison of integers, so a picture with its
centre moved by whole pixels is the shifted picture, bit for bit.

    dataset = cnnjax.data.load("shapes:size=48:n=2000:channels=1:seed=3")
    dataset.truth["train"]["centre"]        # (2000, 2) int32, row and column
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax.data.dataset import Content, DatasetCard, Split

Member = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

SMALLEST_SIZE = 16
DARKEST, BRIGHTEST = 96, 255
BLOCK = 512

# Membership of the pixel at offset (y, x) from the centre in a shape of radius r.
SHAPES: Mapping[str, Member] = {
    "disk": lambda y, x, r: y * y + x * x <= r * r,
    "square": lambda y, x, r: np.maximum(abs(y), abs(x)) <= r,
    "diamond": lambda y, x, r: abs(y) + abs(x) <= r,
    "triangle": lambda y, x, r: (abs(y) <= r) & (2 * abs(x) <= y + r),
    "plus": lambda y, x, r: (
        (np.maximum(abs(y), abs(x)) <= r) & (np.minimum(abs(y), abs(x)) <= r // 4)
    ),
    "saltire": lambda y, x, r: (np.maximum(abs(y), abs(x)) <= r) & (abs(abs(y) - abs(x)) <= r // 4),
    "ring": lambda y, x, r: (y * y + x * x <= r * r) & (4 * (y * y + x * x) > r * r),
    "frame": lambda y, x, r: (
        (np.maximum(abs(y), abs(x)) <= r) & (2 * np.maximum(abs(y), abs(x)) > r)
    ),
}


class Scenes(NamedTuple):
    """What N pictures show: label (N,), centre (N, 2), radius (N,), colour (N, C), all int32.

    Centres are (row, column) in pixels, radii in pixels, colours in 0..255.
    """

    label: np.ndarray
    centre: np.ndarray
    radius: np.ndarray
    colour: np.ndarray


def read(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Draw `n` training and max(n // 4, 1) test pictures, (size, size, channels)."""
    del root
    check(params)
    size, classes = params["size"], params["classes"]
    splits, truth = [], {}
    for part, (name, count) in enumerate({"train": params["n"], "test": params["n"] // 4}.items()):
        random = np.random.RandomState([params["seed"], part])
        scenes = invent(random, max(count, 1), size, params["channels"], classes)
        images = render(scenes, size=size)
        if params["noise"]:
            images = add_noise(images, random, params["noise"])
        splits.append(Split(images, scenes.label))
        truth[name] = {key: value for key, value in scenes._asdict().items() if key != "label"}
    return Content(splits[0], splits[1], classes=card.classes[:classes], truth=truth)


def check(params: Mapping[str, Any]) -> None:
    """Raise ValueError for parameters that no picture can be drawn with."""
    lowest = {"size": SMALLEST_SIZE, "n": 1, "channels": 1, "seed": 0, "noise": 0, "classes": 2}
    for key, low in lowest.items():
        if not params[key] >= low:
            raise ValueError(f"shapes: {key}={params[key]}: expected {low} or more")
    if params["classes"] > len(SHAPES):
        raise ValueError(f"shapes: classes={params['classes']}: expected 2 to {len(SHAPES)}")
    if params["seed"] >= 2**32:
        raise ValueError(f"shapes: seed={params['seed']}: expected less than 2**32")
    if not params["noise"] < np.inf:
        raise ValueError(f"shapes: noise={params['noise']}: expected a finite number")


def invent(
    random: np.random.RandomState, count: int, size: int, channels: int, classes: int
) -> Scenes:
    """Draw scenes in which every shape lies wholly inside the picture, classes balanced."""
    label = random.permutation(np.arange(count) % classes)
    radius = random.randint(size // 8 + 1, size // 4 + 1, count)
    places = size - 2 * radius
    centre = radius[:, None] + (random.random_sample((count, 2)) * places[:, None]).astype(int)
    colour = random.randint(DARKEST, BRIGHTEST + 1, (count, channels))
    return Scenes(*(np.asarray(a, np.int32) for a in (label, centre, radius, colour)))


def render(scenes: Scenes, *, size: int) -> np.ndarray:
    """Return the pictures (N, size, size, C) uint8, without noise."""
    images = np.zeros((len(scenes.label), size, size, scenes.colour.shape[1]), np.uint8)
    members = list(SHAPES.values())
    for start in range(0, len(images), BLOCK):
        block = Scenes(*(values[start : start + BLOCK] for values in scenes))
        for label in np.unique(block.label):
            chosen = np.flatnonzero(block.label == label)
            y, x = (np.arange(size) - block.centre[chosen, axis, None] for axis in (0, 1))
            inside = members[label](y[:, :, None], x[:, None, :], block.radius[chosen, None, None])
            colour = block.colour[chosen, None, None, :]
            images[start + chosen] = np.where(inside[..., None], colour, 0)
    return images


def add_noise(images: np.ndarray, random: np.random.RandomState, level: float) -> np.ndarray:
    """Add Gaussian noise of standard deviation `level` grey values; round, clip to 0..255."""
    noisy = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        exact = block + random.normal(0.0, level, block.shape)
        noisy[start : start + BLOCK] = np.rint(exact).clip(0, 255)
    return noisy

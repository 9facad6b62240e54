"""Random pictures as a data set: what a benchmark trains on.

dataset = random_dataset(1280, (28, 28, 1))
"""

from __future__ import annotations

import numpy as np

from cnnjax.data import Dataset, Split

CLASSES = tuple("0123456789")


def random_dataset(count: int, image_shape: tuple[int, int, int]) -> Dataset:
    """Return `count` images of noise with labels at random, the same ones every time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *image_shape), np.uint8)
    split = Split(images, rng.integers(0, len(CLASSES), count, np.int32))
    return Dataset(
        name="random", spec="random", train=split, test=split, classes=CLASSES,
        standardize=False, boundary="zeros", slack=0,
    )  # fmt: skip

"""Batches: every image exactly once an epoch, in an order that depends on (seed, epoch) alone.

for batch in batches(split, batch_size=64, order=permutation(len(split.labels), seed, epoch)):
    ...
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnnjax.data import Split


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of `count` images in this epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def batches(
    split: Split, *, batch_size: int, order: np.ndarray | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of one fixed size; a short last one is filled up with images of weight 0.

    The filling comes from the start of the order, so that batch statistics see real images.
    """
    count = len(split.labels)
    order = np.arange(count) if order is None else order
    for start in range(0, count, batch_size):
        rows = order[start : start + batch_size]
        real = len(rows)
        rows = np.concatenate([rows, np.resize(order, batch_size - real)])
        yield {
            "image": split.images[rows],
            "label": split.labels[rows],
            "weight": (np.arange(batch_size) < real).astype(np.float32),
        }

"""Batches: every image exactly once an epoch, in an order that depends on (seed, epoch) alone.

    for batch in batches(split, batch_size=64, order=permutation(len(split.labels), seed, epoch)):
        ...
    for batch in feed(split, batch_size=64, seed=0)(epoch, 0):      # the same
        ...

A Feed is where training has its batches from: this one for images in memory, `loader.Loader` for
images that are read when their turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from cnnjax.data import Split

WHOLE = slice(None)

Batch = dict[str, np.ndarray]
# (epoch, first) -> the batches of that epoch, from the `first` on.
Feed = Callable[[int, int], Iterator[Batch]]


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of `count` images in this epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def plan_rows(
    order: np.ndarray, *, batch_size: int, first: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, weight), each (batch_size,), for every batch from the `first` on.

    The short last one is filled up with rows of weight 0 from the start of the order, so that batch
    statistics see real images.
    """
    for start in range(first * batch_size, len(order), batch_size):
        rows = order[start : start + batch_size]
        weight = (np.arange(batch_size) < len(rows)).astype(np.float32)
        yield np.concatenate([rows, np.resize(order, batch_size - len(rows))]), weight


def batches(
    split: Split,
    *,
    batch_size: int,
    order: np.ndarray | None = None,
    first: int = 0,
    part: slice = WHOLE,
) -> Iterator[Batch]:
    """Yield batches of one fixed size from the `first` on, of each the rows in `part`."""
    order = np.arange(len(split.labels)) if order is None else order
    yield from taken(split, plan_rows(order, batch_size=batch_size, first=first), part)


def taken(
    split: Split, plan: Iterable[tuple[np.ndarray, np.ndarray]], part: slice = WHOLE
) -> Iterator[Batch]:
    """Yield the batch of each (rows, weight), of it the rows in `part`."""
    for rows, weight in plan:
        own = rows[part]
        yield {"image": split.images[own], "label": split.labels[own], "weight": weight[part]}


def feed(split: Split, *, batch_size: int, seed: int, part: slice = WHOLE) -> Feed:
    """Return the feed of a split in memory, of each batch the rows in `part`."""

    def read(epoch: int, first: int) -> Iterator[Batch]:
        order = permutation(len(split.labels), seed, epoch)
        return batches(split, batch_size=batch_size, order=order, first=first, part=part)

    return read

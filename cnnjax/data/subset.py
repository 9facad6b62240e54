"""Class-balanced orders: labels -> a permutation of which every beginning is stratified.

order = stratified_permutation(labels, seed=0)
small = stratified_subset(split, 500)          # the first 500 of it
"""

from __future__ import annotations

import numpy as np

from cnnjax.data.dataset import Split


def stratified_permutation(labels: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return a random order (N,) int64 whose first n entries hold each class in its proportion.

    Member j of a shuffled class of size m is due at the fraction (j + 1/2) / m of the order; ties
    are broken at random. Any prefix of n then holds n m / N members of that class, within one or
    two.
    """
    # RandomState's streams are frozen for good, those of numpy's Generator are not: a split that
    # changed with numpy's version would silently change every published number.
    random = np.random.RandomState(seed)
    shuffled = random.permutation(len(labels))
    due = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        due[members] = (np.arange(len(members)) + 0.5) / len(members)
    tie_breaker = random.permutation(len(labels))
    return np.lexsort((tie_breaker, due))


def stratified_subset(split: Split, count: int, *, seed: int = 0) -> Split:
    """Return the first `count` pictures of the stratified permutation of `split`.

    Raises ValueError unless 1 <= count <= N.
    """
    return take(split, subset_indices(split.labels, count, "count", seed=seed))


def subset_indices(labels: np.ndarray, count: int, argument: str, *, seed: int = 0) -> np.ndarray:
    """Return the places (count,) of a stratified subset; errors call `count` by `argument`."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{argument}: expected an integer, got {count!r}")
    if not 1 <= count <= len(labels):
        raise ValueError(f"{argument}={count}: expected 1 to {len(labels)}, the pictures there are")
    return stratified_permutation(labels, seed=seed)[:count]


def take(split: Split, indices: np.ndarray) -> Split:
    """Return the pictures and labels at `indices`."""
    return Split(split.images[indices], split.labels[indices])

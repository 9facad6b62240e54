"""The classes a trained network gave to every test image: what image-level statistics start from.

    predictions = Predictions.read(store.trial(trial_id))      # None where none were kept
    predictions.per_image("accuracy")                          # (N,), mean: the trial's figure
    read = reader(store); read(trial_id)

Kept in a trial's predictions.npz as the smallest integers that hold the classes, compressed: some
10 kB for 1,000 images at 49 places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cnnjax.invariance.metrics import pair_agreement
from cnnjax.study.store import Store, TrialFiles


@dataclass(frozen=True)
class Predictions:
    """labels (N,) and classes (N,) of the test images where they stand; classes `moved` (M, K) of
    the first M of them at the K `offsets` (K, 2), rows then columns, in pixels."""

    labels: np.ndarray
    classes: np.ndarray
    moved: np.ndarray
    offsets: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is kept: the fields, in the smallest type that holds them."""
        most = max(int(part.max(initial=0)) for part in (self.labels, self.classes, self.moved))
        kind = np.min_scalar_type(most)
        kept = {name: getattr(self, name).astype(kind) for name in ("labels", "classes", "moved")}
        return kept | {"offsets": self.offsets.astype(np.int16)}

    @classmethod
    def read(cls, files: TrialFiles) -> Predictions | None:
        """Return a trial's predictions, None where it kept none (it failed, or an old version)."""
        arrays = files.predictions()
        return None if arrays is None else cls(**arrays)

    def per_image(self, metric: str) -> np.ndarray:
        """Return each image's own figure, whose mean is the trial's; ValueError for others."""
        if metric not in PER_IMAGE:
            raise ValueError(f"metric: expected one of {', '.join(PER_IMAGE)}, got {metric!r}")
        return PER_IMAGE[metric](self)


def _accuracy(predictions: Predictions) -> np.ndarray:
    return (predictions.classes == predictions.labels).astype(float)


def _accuracy_away(predictions: Predictions) -> np.ndarray:
    away = np.any(predictions.offsets != 0, axis=1)
    labels = predictions.labels[: len(predictions.moved), None]
    return (predictions.moved[:, away] == labels).mean(axis=1)


def _consistency(predictions: Predictions) -> np.ndarray:
    return pair_agreement(predictions.moved)


PER_IMAGE: Mapping[str, Callable[[Predictions], np.ndarray]] = {
    "accuracy": _accuracy,
    "accuracy_away": _accuracy_away,
    "consistency": _consistency,
}


def reader(store: Store) -> Callable[[str], Predictions | None]:
    """Return trial id -> its predictions."""
    return lambda trial_id: Predictions.read(store.trial(trial_id))

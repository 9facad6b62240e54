"""Figures of invariance from all shifts at once: predictions (N, K) -> numbers, no Monte Carlo.

    predictions = logits.argmax(-1)                      # (N, K) from shift_logits
    consistency(predictions)                             # P(two distinct shifts agree)
    consistency_as_published(predictions)                # the same with identical pairs counted
    worst_case_accuracy(predictions, labels)             # right at every shift
    bootstrap(pair_agreement(predictions))               # mean and interval, images resampled

With n_ic the number of shifts at which image i is given class c, agreement needs no pairs:
C = sum_ic n_ic (n_ic - 1) / (N K (K - 1)). Every figure belongs to a shift set and a boundary: say
which. N images, K shifts, C classes throughout; labels (N,) are class ids.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.special
import scipy.stats


def consistency(predictions: Any) -> float:
    """Return the probability that two distinct shifts of an image are given the same class.

    `predictions` (N, K) are class ids, K >= 2. The exact value of what Zhang (2019) and followers
    estimate from random pairs, without the pairs of a shift with itself.
    """
    return float(pair_agreement(predictions).mean())


def consistency_as_published(predictions: Any) -> float:
    """Return what independent random pairs estimate: identical pairs count as agreements.

    1 / K + (1 - 1 / K) C, so a network that is never consistent still scores 1 / K.
    """
    predictions = class_ids(predictions)
    shifts = predictions.shape[1]
    return 1 / shifts + (1 - 1 / shifts) * consistency(predictions)


def pair_agreement(predictions: Any) -> np.ndarray:
    """Return each image's share (N,) of its K (K - 1) ordered pairs of shifts that agree."""
    predictions = class_ids(predictions, pairs=True)
    shifts = predictions.shape[1]
    counts = class_counts(predictions)
    return (counts * (counts - 1)).sum(axis=1) / (shifts * (shifts - 1))


def conditional_consistency(predictions: Any, labels: Any) -> float:
    """Return P(right at a second, distinct shift | right at the first); NaN if never right.

    Unlike `consistency` this does not rise just because the accuracy does.
    """
    right = correct(predictions, labels, pairs=True).sum(axis=1)
    shifts = np.shape(predictions)[1]
    possible = right.sum() * (shifts - 1)
    return float((right * (right - 1)).sum() / possible) if possible else float("nan")


def fidelity(predictions: Any, labels: Any) -> float:
    """Return P(both of two distinct shifts are right): shift fidelity (Saha and Gokhale 2024)."""
    right = correct(predictions, labels, pairs=True).sum(axis=1)
    images, shifts = np.shape(predictions)
    return float((right * (right - 1)).sum() / (images * shifts * (shifts - 1)))


def accuracy(predictions: Any, labels: Any) -> float:
    """Return the mean accuracy over images and shifts."""
    return float(correct(predictions, labels).mean())


def worst_case_accuracy(predictions: Any, labels: Any) -> float:
    """Return the share of images that are right at every shift (Engstrom et al. 2019)."""
    return float(correct(predictions, labels).all(axis=1).mean())


def accuracy_by_shift(predictions: Any, labels: Any) -> np.ndarray:
    """Return the accuracy (K,) at each shift; reshape to (H, W) for a map of all shifts."""
    return correct(predictions, labels).mean(axis=0)


def top1_change(predictions: Any) -> float:
    """Return P(the class changes from one shift to the next) along the K shifts, in order.

    With `ops.shifts.diagonal` this is P(top-1 change) of Azulay and Weiss (2019).
    """
    predictions = class_ids(predictions, pairs=True)
    return float((predictions[:, 1:] != predictions[:, :-1]).mean())


def mean_absolute_change(logits: Any) -> float:
    """Return mean |p_c(next) - p_c(here)| along logits (N, K, C), c the class given here.

    p is the softmax; the jaggedness of Azulay and Weiss (2019).
    """
    probabilities = softmax(logits)
    here, after = probabilities[:, :-1], probabilities[:, 1:]
    if not here.size:
        raise ValueError("logits: a change needs K >= 2 shifts, got K = 1")
    top = here.argmax(axis=-1)[..., None]
    change = np.take_along_axis(after, top, -1) - np.take_along_axis(here, top, -1)
    return float(np.abs(change).mean())


def sensitivity_map(logits: Any, labels: Any, reference: int = 0) -> np.ndarray:
    """Return the translation-sensitivity map (K,): E ||f(x) - f(T x)|| over class distance.

    Distances are to the shift `reference`; the normaliser is the median distance between images of
    different classes there (Kauderer-Abrams 2017). logits (N, K, C), at least two classes.
    """
    logits = as_logits(logits)
    labels = _labels(labels, len(logits))
    still = logits[:, reference]
    distance = np.linalg.norm(still[:, None] - still[None], axis=-1)
    between = distance[labels[:, None] != labels[None]]
    if not between.size:
        raise ValueError("labels: a sensitivity map needs images of two classes, got one")
    moved = np.linalg.norm(logits - still[:, None], axis=-1).mean(axis=0)
    return moved / np.median(between)


def radial_profile(values: Any, offsets: Any, size: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (radii, means): values (K,) averaged over offsets (K, 2) of equal rounded length.

    With `size` (H, W) an offset counts as its shortest circular equivalent.
    """
    offsets, values = np.asarray(offsets, float), np.asarray(values, float)
    if offsets.shape != (*values.shape, 2):
        raise ValueError(f"offsets: expected shape {(*values.shape, 2)}, got {offsets.shape}")
    if size is not None:
        half = np.asarray(size) / 2
        offsets = (offsets + half) % np.asarray(size) - half
    radii, group = np.unique(np.hypot(*offsets.T).round().astype(int), return_inverse=True)
    return radii, np.bincount(group, weights=values) / np.bincount(group)


def margin_map(logits: Any) -> np.ndarray:
    """Return the mean gap (K,) between the two largest logits at each shift."""
    top = np.sort(as_logits(logits), axis=-1)[..., -2:]
    if top.shape[-1] < 2:
        raise ValueError("logits: a margin needs at least two classes, got one")
    return (top[..., 1] - top[..., 0]).mean(axis=0)


def entropy_map(logits: Any) -> np.ndarray:
    """Return the mean entropy (K,), in nats, of the softmax at each shift."""
    return scipy.special.entr(softmax(logits)).sum(axis=-1).mean(axis=0)


class Orbits(NamedTuple):
    """Each image's fate over all shifts, every field of shape (N,)."""

    modal_class: np.ndarray
    modal_share: np.ndarray
    classes: np.ndarray
    entropy: np.ndarray
    agreement: np.ndarray


def orbits(predictions: Any) -> Orbits:
    """Return per image: the class given most, its share, how many classes, entropy in nats."""
    counts = class_counts(class_ids(predictions, pairs=True))
    share = counts / counts.sum(axis=1, keepdims=True)
    return Orbits(
        modal_class=counts.argmax(axis=1),
        modal_share=share.max(axis=1),
        classes=(counts > 0).sum(axis=1),
        entropy=scipy.special.entr(share).sum(axis=1),
        agreement=pair_agreement(predictions),
    )


class Interval(NamedTuple):
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    values: Any, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of values (N,) or (seeds, N) with a cluster-bootstrap interval.

    Images are resampled whole, all their shifts together, and seeds whole, independently of the
    images (Owen 2007's pigeonhole bootstrap); percentile interval by `scipy.stats.bootstrap`.
    A single image or seed is not resampled; both single give low = high = mean.
    """
    values = np.atleast_2d(np.asarray(values, float))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values: expected (N,) or (seeds, N), got shape {values.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    axes = [axis for axis in (0, 1) if values.shape[axis] > 1]
    mean = float(values.mean())
    if not axes or np.ptp(values) == 0:
        return Interval(mean, mean, mean)

    def resampled(*picks: np.ndarray, axis: int = -1) -> np.ndarray:
        index = dict(zip(axes, picks, strict=True))
        return values[np.ix_(*(index.get(a, np.arange(values.shape[a])) for a in (0, 1)))].mean()

    result = scipy.stats.bootstrap(
        [np.arange(values.shape[axis]) for axis in axes],
        resampled,
        n_resamples=resamples,
        vectorized=False,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(mean, *map(float, result.confidence_interval))


def class_ids(predictions: Any, *, pairs: bool = False) -> np.ndarray:
    """Return predictions (N, K) as class ids; ValueError unless so, or K < 2 where pairs matter."""
    array = np.asarray(predictions)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu" or array.min() < 0:
        raise ValueError(
            "predictions: expected class ids >= 0 of shape (images, shifts), "
            f"got {array.dtype} of shape {array.shape}"
        )
    if pairs and array.shape[1] < 2:
        raise ValueError("predictions: agreement needs K >= 2 shifts, got K = 1")
    return array


def class_counts(predictions: np.ndarray) -> np.ndarray:
    """Return how often each class is given to each image: (N, K) -> (N, classes)."""
    classes = int(predictions.max()) + 1
    flat = predictions + classes * np.arange(len(predictions))[:, None]
    return np.bincount(flat.ravel(), minlength=classes * len(predictions)).reshape(-1, classes)


def correct(predictions: Any, labels: Any, *, pairs: bool = False) -> np.ndarray:
    """Return which predictions (N, K) are right, as booleans."""
    predictions = class_ids(predictions, pairs=pairs)
    return predictions == _labels(labels, len(predictions))[:, None]


def as_logits(logits: Any) -> np.ndarray:
    """Return logits (N, K, C) as float64; ValueError for another shape or values not finite."""
    array = np.asarray(logits, float)
    if array.ndim != 3 or not array.size:
        raise ValueError(f"logits: expected (images, shifts, classes), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("logits: expected finite numbers, got NaN or infinity")
    return array


def softmax(logits: Any) -> np.ndarray:
    """Return the class probabilities of logits (N, K, C)."""
    return scipy.special.softmax(as_logits(logits), axis=-1)


def _labels(labels: Any, images: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (images,):
        raise ValueError(f"labels: expected shape ({images},), got {labels.shape}")
    return labels

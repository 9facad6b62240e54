"""Are probabilities honest? Logits and labels -> expected calibration error, and the cure.

    temperature = fit_temperature(validation_logits, validation_labels)
    calibration_error(test_logits, test_labels)                     # before
    calibration_error(test_logits / temperature, test_labels)       # after

NumPy in float64: some thousand rows, once a run.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15
# A network of certain answers has no best temperature inside: the search ends at these.
COLDEST, HOTTEST = 0.05, 20.0


def calibration_error(logits: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> float:
    """Return the expected calibration error of logits (N, K) for labels (N,), from 0 to 1.

    The mean over `bins` equal intervals of confidence, each weighted by its images, of the distance
    between accuracy and mean confidence (C. Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017, eq. 3). Raises ValueError where shapes do not fit or nothing is given.
    """
    logits, labels = _checked(logits, labels)
    probabilities = softmax(logits, axis=-1)
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T > 0 that minimises the mean negative log-likelihood of softmax(logits / T).

    The likelihood is concave in 1 / T, so that the minimum is the only one; it is searched from
    COLDEST to HOTTEST (Guo et al. 2017, section 4.2).
    """
    logits, labels = _checked(logits, labels)
    rows = np.arange(len(labels))

    def loss(exponent: float) -> float:
        return -float(log_softmax(logits * np.exp(-exponent), axis=-1)[rows, labels].mean())

    bounds = np.log(COLDEST), np.log(HOTTEST)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"expected logits (N, K) and labels (N,), got shapes {logits.shape} and {labels.shape}"
        )
    return logits, labels

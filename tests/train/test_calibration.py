"""Calibration: known temperatures are found, honest probabilities have no error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from cnnjax.train.calibration import BINS, calibration_error, fit_temperature


def honest(count: int = 40_000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax."""
    random = np.random.RandomState(0)
    logits = random.normal(0, 1.5, (count, classes))
    chances = softmax(logits, axis=-1).cumsum(axis=-1)
    return logits, (random.random_sample((count, 1)) > chances).sum(axis=-1).clip(0, classes - 1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_of_distorted_logits_is_found(temperature: float) -> None:
    logits, labels = honest()
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_scaling_cures_overconfidence() -> None:
    logits, labels = honest()
    assert calibration_error(logits, labels) < 0.01
    distorted = 4 * logits
    before = calibration_error(distorted, labels)
    after = calibration_error(distorted / fit_temperature(distorted, labels), labels)
    assert before > 0.1 > 10 * after


def test_by_hand() -> None:
    """Two answers of confidence 0.9, one right; one of 0.6, right: (2 x 0.4 + 0.4) / 3."""
    confidence = np.array([0.9, 0.9, 0.6])
    logits = np.log(np.stack([confidence, 1 - confidence], axis=-1))
    labels = np.array([0, 1, 0])
    assert calibration_error(logits, labels) == pytest.approx(1.2 / 3)


def test_the_definition_bin_by_bin() -> None:
    logits, labels = honest(500)
    logits = 2 * logits
    probabilities = softmax(logits, axis=-1)
    confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    total = 0.0
    for i in range(BINS):
        inside = (confidence > i / BINS) & (confidence <= (i + 1) / BINS)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(logits, labels) == pytest.approx(total)


def test_certain_answers_end_the_search() -> None:
    logits = np.eye(3)[np.arange(30) % 3] * 0.5  # larger ones are certain at any T
    assert fit_temperature(logits, np.arange(30) % 3) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(logits, (np.arange(30) + 1) % 3) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(
    ("logits", "labels"), [((3, 2), (2,)), ((3,), (3,)), ((0, 2), (0,)), ((3, 2), (3, 2))]
)
def test_shapes_are_checked(logits: tuple[int, ...], labels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected logits"):
        calibration_error(np.zeros(logits), np.zeros(labels, int))

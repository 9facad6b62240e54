"""Closed forms against counting every pair, one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cnnjax.invariance import metrics
from cnnjax.ops import shifts

RNG = np.random.default_rng(0)
PREDICTIONS = RNG.integers(0, 4, (6, 9))
LABELS = RNG.integers(0, 4, 6)
LOGITS = RNG.normal(size=(6, 9, 4))


def pairs(row):
    return list(itertools.permutations(row, 2))


@pytest.mark.parametrize("classes", [1, 2, 4, 50])
def test_consistency_counts_every_pair(classes):
    predictions = RNG.integers(0, classes, (5, 7))
    counted = np.mean([[a == b for a, b in pairs(row)] for row in predictions])
    assert metrics.consistency(predictions) == pytest.approx(counted, abs=1e-15)
    with_self = np.mean([[a == b for a in row for b in row] for row in predictions])
    assert metrics.consistency_as_published(predictions) == pytest.approx(with_self, abs=1e-15)


def test_pairs_that_are_right():
    known = [
        (a == y, b == y) for row, y in zip(PREDICTIONS, LABELS, strict=True) for a, b in pairs(row)
    ]
    both = np.mean([a and b for a, b in known])
    assert metrics.fidelity(PREDICTIONS, LABELS) == pytest.approx(both, abs=1e-15)
    second = np.mean([b for a, b in known if a])
    assert metrics.conditional_consistency(PREDICTIONS, LABELS) == pytest.approx(second, abs=1e-15)
    assert np.isnan(metrics.conditional_consistency([[1, 1]], [0]))


def test_extremes():
    assert metrics.consistency([[3] * 5, [0] * 5]) == 1.0
    assert metrics.consistency([[0, 1, 2]]) == 0.0
    assert metrics.consistency_as_published([[0, 1, 2]]) == pytest.approx(1 / 3)


def test_accuracies():
    right = LABELS[:, None] == PREDICTIONS
    assert metrics.accuracy(PREDICTIONS, LABELS) == right.mean()
    np.testing.assert_array_equal(metrics.accuracy_by_shift(PREDICTIONS, LABELS), right.mean(0))
    assert metrics.worst_case_accuracy([[1, 1], [1, 0]], [1, 1]) == 0.5


def test_changes_along_a_path():
    assert metrics.top1_change([[0, 1, 0, 1], [2, 2, 2, 2]]) == 3 / 6
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    expected = [abs(p[k + 1][p[k].argmax()] - p[k].max()) for p in probabilities for k in range(8)]
    assert metrics.mean_absolute_change(LOGITS) == pytest.approx(np.mean(expected))


def test_sensitivity_is_one_where_a_shift_is_as_far_as_another_class():
    logits = np.zeros((2, 2, 2))
    logits[:, 0] = [[0, 0], [3, 4]]
    logits[:, 1] = logits[:, 0] + [4, 3]
    np.testing.assert_allclose(metrics.sensitivity_map(logits, [0, 1]), [0.0, 1.0])


def test_radial_profile_wraps_with_the_image():
    offsets = shifts.all_offsets((4, 4))
    values = np.abs((offsets + 2) % 4 - 2).max(axis=1)
    radii, means = metrics.radial_profile(values, offsets, size=(4, 4))
    assert radii.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(means[[0, 1, 3]], [0, 1, 2])


def test_maps_and_orbits():
    assert metrics.margin_map([[[1.0, 4.0, 2.0]]]).tolist() == [2.0]
    np.testing.assert_allclose(metrics.entropy_map(np.zeros((3, 2, 4))), np.log(4))
    orbit = metrics.orbits([[2, 2, 0, 2], [1, 1, 1, 1]])
    assert orbit.modal_class.tolist() == [2, 1]
    assert orbit.modal_share.tolist() == [0.75, 1.0]
    assert orbit.classes.tolist() == [2, 1]
    assert orbit.entropy[1] == 0.0


def test_bootstrap_covers_the_mean_and_knows_clusters():
    values = np.repeat(RNG.normal(size=(1, 40)), 5, axis=0)
    images = metrics.bootstrap(values[:1], resamples=400)
    both = metrics.bootstrap(values, resamples=400)
    assert images.low < images.mean < images.high
    # Five copies of one seed hold no more images than one.
    assert both.high - both.low == pytest.approx(images.high - images.low, rel=0.2)
    expected = 2 * 1.96 * values[0].std() / np.sqrt(40)
    assert images.high - images.low == pytest.approx(expected, rel=0.2)
    assert metrics.bootstrap([0.5]) == (0.5, 0.5, 0.5)
    assert metrics.bootstrap(np.ones(9)) == (1.0, 1.0, 1.0)


def test_bootstrap_sees_the_spread_of_seeds():
    values = RNG.normal(size=(4, 1)) + np.zeros((4, 30))
    interval = metrics.bootstrap(values, resamples=400)
    assert interval.high - interval.low > values.std()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.consistency([[1], [2]]), "K >= 2"),
        (lambda: metrics.consistency([1, 2]), "shape"),
        (lambda: metrics.consistency([[0.5, 1.0]]), "class ids"),
        (lambda: metrics.consistency([[-1, 1]]), "class ids"),
        (lambda: metrics.accuracy(PREDICTIONS, LABELS[:2]), "labels"),
        (lambda: metrics.margin_map(np.full((1, 2, 3), np.nan)), "finite"),
        (lambda: metrics.mean_absolute_change(LOGITS[:, :1]), "K >= 2"),
        (lambda: metrics.sensitivity_map(LOGITS, [1] * 6), "two classes"),
        (lambda: metrics.bootstrap([]), "values"),
        (lambda: metrics.bootstrap([1, 2], level=95), "level"),
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnjax.data import Dataset, Split
from cnnjax.data.dataset import channel_moments


def dataset(train: np.ndarray, labels: np.ndarray) -> Dataset:
    split = Split(train, labels)
    return Dataset(
        name="x", spec="x", train=split, test=split, classes=("a", "b"), standardize=True,
        boundary="zeros", slack=0,
    )  # fmt: skip


@given(arrays(np.uint8, st.tuples(*map(st.integers, (1, 1, 1, 1), (4, 5, 6, 3)))))
def test_moments_are_those_of_the_pixels_over_255(images: np.ndarray) -> None:
    means, stds = channel_moments(images)
    scaled = images / 255
    np.testing.assert_allclose(means, scaled.mean((0, 1, 2)), rtol=1e-12, atol=1e-15)
    # NumPy's own two-pass sum is what is inexact here.
    np.testing.assert_allclose(stds, scaled.std((0, 1, 2)), rtol=1e-9, atol=1e-9)


IMAGES, LABELS = np.zeros((4, 2, 3, 1), np.uint8), np.array([0, 1, 1, 0], np.int32)
WRONG = {
    r"train.labels\[2\]: expected 0 to 1, got 2": (IMAGES, np.array([0, 1, 2, 7], np.int32)),
    r"train.labels\[0\]: expected 0 to 1, got -1": (IMAGES, np.array([-1, 1, 0, 0], np.int32)),
    r"train.labels: expected integers, got float64": (IMAGES, LABELS.astype(float)),
    r"train.labels: expected \(4,\), got \(3,\)": (IMAGES, LABELS[:3]),
    r"train.labels: expected \(4,\), got \(4, 2\)": (IMAGES, np.eye(4, 2, dtype=np.int32)),
    r"train.images: expected uint8, got float32": (IMAGES.astype(np.float32), LABELS),
    r"train.images: expected \(N, H, W, C\), none of them 0, got \(4, 2, 3\)": (
        IMAGES[..., 0],
        LABELS,
    ),
    r"train.images: expected \(N, H, W, C\), none of them 0, got \(0, 2": (IMAGES[:0], LABELS[:0]),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_data_set_is_refused_in_one_line(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^dataset x: {message}") as caught:
        dataset(*WRONG[message])
    assert "\n" not in str(caught.value)


def test_both_splits_have_one_shape() -> None:
    good = dataset(IMAGES, LABELS)
    other = Split(np.zeros((4, 3, 3, 1), np.uint8), LABELS)
    with pytest.raises(ValueError, match=r"test.images: expected .* \(2, 3, 1\) as in train, got"):
        dataclasses.replace(good, test=other)


def test_moments_do_not_depend_on_the_order_of_the_pictures() -> None:
    images = np.random.RandomState(0).randint(0, 256, (3000, 4, 4, 2)).astype(np.uint8)
    assert channel_moments(images) == channel_moments(images[::-1])
    assert channel_moments(np.full((2000, 2, 2, 1), 255, np.uint8)) == ((1.0,), (0.0,))


def test_shape_classes_and_laziness() -> None:
    images = np.zeros((4, 5, 6, 3), np.uint8)
    found = dataset(images, np.zeros(4, np.int32))
    assert (found.image_shape, found.num_classes) == ((5, 6, 3), 2)
    assert found.mean == found.std == (0.0, 0.0, 0.0)


def test_checksum_tells_pixels_labels_and_shapes_apart() -> None:
    images, labels = np.zeros((4, 2, 3, 1), np.uint8), np.zeros(4, np.int32)
    other = images.copy()
    other[3, 1, 2, 0] = 1
    variants = [
        dataset(images, labels),
        dataset(other, labels),
        dataset(images, labels + 1),
        dataset(images.reshape(4, 3, 2, 1), labels),
    ]
    assert len({variant.checksum for variant in variants}) == 4
    assert variants[0].checksum == dataset(images.copy(), labels.copy()).checksum

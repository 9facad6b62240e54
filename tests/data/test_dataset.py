from __future__ import annotations

import numpy as np
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

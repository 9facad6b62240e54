"""The real files, where CNNJAX_DATA says where they are."""

from __future__ import annotations

import numpy as np
import pytest

from cnnjax.data import load
from cnnjax.data.catalog import DATASETS
from cnnjax.data.fetch import verify
from cnnjax.data.files import data_root

pytestmark = pytest.mark.shared


def test_mnist_is_the_official_one() -> None:
    dataset = load("mnist")
    assert dataset.train.images.shape == (60_000, 28, 28, 1)
    assert dataset.test.images.shape == (10_000, 28, 28, 1)
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert dataset.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(dataset.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert abs(dataset.mean[0] - 0.1307) < 5e-5
    assert abs(dataset.std[0] - 0.3081) < 5e-5


def test_mnist_files_verify() -> None:
    assert verify(DATASETS["mnist"], data_root(None)).is_dir()


def test_subset_of_mnist_is_stratified() -> None:
    dataset = load("mnist:train=1000:test=500")
    shares = np.bincount(dataset.train.labels) / 1000
    assert np.all(abs(shares - np.bincount(load("mnist").train.labels) / 60_000) < 0.003)
    assert len(dataset.test.labels) == 500

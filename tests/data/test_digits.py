from __future__ import annotations

import numpy as np
import pytest

from cnnjax.data import digits, load


def test_digits_are_scikit_learns_scaled_to_255() -> None:
    table = digits.ink_table()
    dataset = load("digits")
    assert dataset.train.images.shape == (1437, 8, 8, 1)
    assert dataset.test.images.shape == (360, 8, 8, 1)
    everything = np.concatenate([dataset.train.images, dataset.test.images]).reshape(-1, 64)
    expected = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, expected))
    assert set(np.unique(everything)) == {0, *np.unique(expected)}
    assert everything.max() == 255


def test_the_file_and_the_public_function_agree() -> None:
    assert np.all(digits.ink_table() == digits.ink_table_from_import())


def test_a_release_that_moved_the_file_is_asked_by_its_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = digits.ink_table()
    monkeypatch.setattr(digits.Path, "is_file", lambda self: False)
    assert np.all(digits.ink_table() == expected)


def test_missing_scikit_learn_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="scikit-learn"):
        load("digits")


def test_split_is_stratified_disjoint_and_pinned() -> None:
    dataset = load("digits")
    labels = digits.ink_table()[:, -1]
    for split in (dataset.train, dataset.test):
        share = np.bincount(split.labels) / np.bincount(labels)
        assert np.all(abs(share - len(split.labels) / len(labels)) < 0.01)
    assert dataset.checksum[:16] == "6d7c0934afa2242e"


def test_canvas_holds_the_doubled_digits() -> None:
    small, large = load("digits"), load("digits_canvas")
    assert large.image_shape == (36, 36, 1)
    assert large.slack == 10
    assert np.all(large.train.labels == small.train.labels)
    for row, column in np.ndindex(2, 2):
        inner = large.test.images[:, 10 + row : 26 : 2, 10 + column : 26 : 2]
        assert np.all(inner == small.test.images)
    assert large.test.images.sum(dtype=int) == 4 * small.test.images.sum(dtype=int)


def test_canvas_parameters() -> None:
    dataset = load("digits_canvas:side=30:scale=3")
    assert (dataset.image_shape, dataset.slack) == ((30, 30, 1), 3)
    with pytest.raises(ValueError, match="side=15: expected 16"):
        load("digits_canvas:side=15")

from __future__ import annotations

import numpy as np
import pytest

from cnnjax.data import Split, canvas
from cnnjax.data.dataset import Content


def content(side: int) -> Content:
    images = np.random.RandomState(0).randint(1, 256, (6, side, side, 2)).astype(np.uint8)
    split = Split(images, np.arange(6, dtype=np.int32))
    return Content(split, split)


@pytest.mark.parametrize(
    ("picture", "side", "scale"), [(8, 36, 2), (28, 48, 1), (3, 9, 3), (2, 8, 1)]
)
def test_picture_sits_exactly_in_the_middle(picture: int, side: int, scale: int) -> None:
    whole = content(picture)
    placed = canvas.centre(whole, side=side, scale=scale)
    margin = (side - scale * picture) // 2
    assert placed.slack == margin
    for split in (placed.train, placed.test):
        images = split.images
        assert images.shape == (6, side, side, 2)
        inner = images[:, margin : side - margin, margin : side - margin]
        assert np.all(inner == np.kron(whole.train.images, np.ones((1, scale, scale, 1), np.uint8)))
        # Every picture is non-zero throughout, so whatever is left must be the black margin.
        assert np.count_nonzero(images) == inner.size
        assert np.all(split.labels == whole.train.labels)


def test_odd_margin_has_its_spare_row_below_and_to_the_right() -> None:
    placed = canvas.centre(content(2), side=5)
    rows = np.flatnonzero(placed.train.images[0, :, :, 0].any(axis=1))
    columns = np.flatnonzero(placed.train.images[0, :, :, 0].any(axis=0))
    assert list(rows) == list(columns) == [1, 2]
    assert placed.slack == 1


@pytest.mark.parametrize(
    ("side", "scale", "message"),
    [(15, 2, "side=15: expected 16 or more"), (36, 0, "scale=0: expected 1 or more"),
     (36, -1, "scale=-1"), (0, 1, "side=0")],
)  # fmt: skip
def test_canvas_that_cannot_hold_the_picture(side: int, scale: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canvas.centre(content(8), side=side, scale=scale)

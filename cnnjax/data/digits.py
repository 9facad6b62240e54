"""The handwritten digits that come with scikit-learn: nothing -> Content, 8x8 grey pictures.

1,797 pictures by 43 writers (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
Digits", UCI Machine Learning Repository, 1998; the test part of that set). They are split into
1,437 for training and 360 for testing by a fixed stratified permutation.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import canvas
from cnnjax.data.dataset import Content, DatasetCard, Split
from cnnjax.data.subset import stratified_permutation, take

TEST_COUNT = 360
SPLIT_SEED = 0
INK_LEVELS = 16


def read(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Return both splits, images (N, 8, 8, 1) with ink 0..16 scaled to 0..255."""
    del card, root, params
    table = ink_table()
    ink = table[:, :-1].reshape(-1, 8, 8, 1).astype(np.int32)
    images = ((ink * 255 + INK_LEVELS // 2) // INK_LEVELS).astype(np.uint8)
    everything = Split(images, table[:, -1].astype(np.int32))
    order = stratified_permutation(everything.labels, seed=SPLIT_SEED)
    # Sorted, so that a split reads in the order of the source whatever the permutation.
    test, train = np.sort(order[:TEST_COUNT]), np.sort(order[TEST_COUNT:])
    return Content(take(everything, train), take(everything, test))


def read_on_canvas(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Return the digits `scale` times as large, centred on a black square of `side` pixels."""
    content = read(card, root, params)
    return canvas.centre(content, side=params["side"], scale=params["scale"])


def ink_table() -> np.ndarray:
    """Return scikit-learn's table (1797, 65) uint8: 64 ink values in 0..16 and the digit.

    The table is read from scikit-learn's files, as importing scikit-learn costs a second in every
    process of a study; a release that has moved the file is asked through its public function.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("digits: the package scikit-learn, which brings them, is missing")
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if path.is_file():
        return np.loadtxt(path, delimiter=",", dtype=np.uint8)
    return ink_table_from_import()


def ink_table_from_import() -> np.ndarray:
    """Return the same table through `sklearn.datasets.load_digits`."""
    from sklearn.datasets import load_digits

    ink, labels = load_digits(return_X_y=True)
    return np.column_stack([ink, labels]).astype(np.uint8)

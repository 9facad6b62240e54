from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import DATASETS, load

EMBEDDED = ["digits", "digits_canvas", "shapes"]

# name, shape, classes, embedded, boundary, slack, standardize: written down apart from the table.
CARDS = [
    ("digits", (8, 8, 1), 10, True, "zeros", 0, False),
    ("digits_canvas", (36, 36, 1), 10, True, "zeros", 10, False),
    ("mnist", (28, 28, 1), 10, False, "zeros", 0, False),
    ("mnist_canvas", (48, 48, 1), 10, False, "zeros", 10, False),
    ("fashion_mnist", (28, 28, 1), 10, False, "zeros", 0, False),
    ("cifar10", (32, 32, 3), 10, False, "circular", 0, True),
    ("cifar10_jpeg", (32, 32, 3), 10, False, "circular", 0, True),
    ("cifar100", (32, 32, 3), 100, False, "circular", 0, True),
    ("shapes", (32, 32, 3), 8, True, "zeros", 0, False),
    ("folder", (32, 32, 3), 0, False, "circular", 0, True),
]


def test_cards_say_what_they_should() -> None:
    assert [
        (c.name, c.image_shape, len(c.classes), c.embedded, c.boundary, c.slack, c.standardize)
        for c in DATASETS.values()
    ] == CARDS
    assert [card.name for card in DATASETS.values()] == list(DATASETS)


def test_class_names() -> None:
    assert DATASETS["cifar10"].classes[3:6] == ("cat", "deer", "dog")
    fine = DATASETS["cifar100"].classes
    assert list(fine) == sorted(set(fine))
    assert fine[0], fine[99] == ("apple", "worm")


def test_files_and_downloads_are_complete() -> None:
    for card in DATASETS.values():
        assert card.embedded == (not card.layouts and card.name != "folder")
        for item in card.downloads:
            assert len(item.md5) == 32 and item.size > 0
            assert all(url.endswith(f"/{item.name}") for url in item.urls)
        if card.downloads:
            assert all(len(file.md5 or file.gz_md5) == 32 for file in card.files)
            assert all(file.size for file in card.layouts[next(iter(card.layouts))])
        sums = [file.md5 for file in card.files if file.md5]
        assert len(set(sums)) == len(sums)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_load_anywhere_as_their_card_says(name: str, tmp_path: Path) -> None:
    dataset, card = load(name, tmp_path / "nowhere"), DATASETS[name]
    assert dataset.image_shape == card.image_shape
    assert dataset.classes == card.classes
    assert (dataset.boundary, dataset.slack) == (card.boundary, card.slack)
    assert dataset.standardize == card.standardize
    for split in (dataset.train, dataset.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert set(split.labels) == set(range(dataset.num_classes))
        assert not split.images.flags.writeable
        assert not split.labels.flags.writeable
        assert split.images.flags.c_contiguous
    assert load(name).checksum == dataset.checksum


def test_subsets_by_spec() -> None:
    dataset, whole = load("digits:train=200:test=50"), load("digits")
    assert (len(dataset.train.labels), len(dataset.test.labels)) == (200, 50)
    assert np.ptp(np.bincount(dataset.train.labels)) <= 2
    assert load("digits:test=50").train.images.tobytes() == whole.train.images.tobytes()
    smaller = load("digits:train=90")
    assert smaller.train.images.tobytes() == dataset.train.images[:90].tobytes()
    assert load(dataset.spec).checksum == dataset.checksum


def test_validation_is_put_aside_from_training() -> None:
    whole, dataset = load("digits"), load("digits:validation=200")
    assert whole.validation is None and dataset.validation is not None
    assert len(dataset.train.labels) + len(dataset.validation.labels) == len(whole.train.labels)
    assert np.ptp(np.bincount(dataset.validation.labels)) <= 3
    pictures = [*dataset.train.images, *dataset.validation.images]
    assert sorted(p.tobytes() for p in pictures) == sorted(p.tobytes() for p in whole.train.images)
    assert dataset.test.images.tobytes() == whole.test.images.tobytes()
    assert dataset.checksum != whole.checksum
    both = load("digits:validation=200:train=100")
    assert both.validation is not None
    assert both.validation.images.tobytes() == dataset.validation.images.tobytes()
    assert len(both.train.labels) == 100
    known = load("shapes:n=100:validation=30")
    assert [len(known.truth[part]["centre"]) for part in ("train", "validation")] == [70, 30]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digits:validation=1437", "validation=1437: expected less than 1437"),
        ("digits:validation=0", "validation=0: expected 1 to 1437"),
        ("digits:validation=0.1", "validation=0.1: expected int"),
        ("digit", "dataset: unknown name 'digit'; did you mean digits"),
        ("", "is empty"),
        ("digits:train=0", "train=0: expected 1 to 1437"),
        ("digits:train=-5", "train=-5: expected 1 to 1437"),
        ("digits:test=361", "test=361: expected 1 to 360"),
        ("digits:train=many", "train=many: expected int, as in digits:train=1000"),
        ("digits:train=true", "train=True: expected int"),
        ("digits:size=9", "unknown parameter 'size'; choose from test, train, validation"),
        ("digits_canvas:sid=40", "unknown parameter 'sid'; did you mean side"),
        ("mnist:verify=1", "verify=1: expected bool, as in mnist:verify=true"),
        ("digits:train=3:train=4", "given twice"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        load(spec)
    assert "\n" not in str(raised.value)


def test_importing_is_cheap() -> None:
    code = (
        "import sys, cnnjax.data, cnnjax.data.fetch;"
        "print(sorted({'jax', 'sklearn', 'PIL', 'rich', 'scipy', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"

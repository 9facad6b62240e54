from __future__ import annotations

import numpy as np
import pytest

from cnnjax.data import load
from cnnjax.data.shapes import SHAPES, Scenes, invent, render


def scenes(*, label: int, centre: tuple[int, int], radius: int) -> Scenes:
    colour = np.array([[200, 100, 50]], np.int32)
    return Scenes(np.array([label]), np.array([centre]), np.array([radius]), colour)


@pytest.mark.parametrize("label", range(len(SHAPES)), ids=list(SHAPES))
def test_moving_the_centre_is_shifting_the_picture(label: int) -> None:
    for radius in (3, 5, 8):
        at_rest = render(scenes(label=label, centre=(16, 16), radius=radius), size=32)
        for move in ((3, -5), (-7, 0), (7, 7)):
            centre = (16 + move[0], 16 + move[1])
            moved = render(scenes(label=label, centre=centre, radius=radius), size=32)
            assert np.all(moved == np.roll(at_rest, move, axis=(1, 2)))


def test_truth_says_where_how_large_and_of_what_colour() -> None:
    dataset = load("shapes:size=40:n=300:channels=2:seed=5")
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        truth = dataset.truth[name]
        for image, label, centre, radius, colour in zip(
            *split, truth["centre"], truth["radius"], truth["colour"], strict=True
        ):
            rows, columns = np.nonzero(image.any(axis=-1))
            assert (rows.min(), rows.max()) == (centre[0] - radius, centre[0] + radius), label
            assert (columns.min() + columns.max()) == 2 * centre[1]
            assert columns.max() - columns.min() == 2 * radius
            assert np.all(image[rows, columns] == colour)


def test_every_class_looks_different_at_every_radius() -> None:
    for radius in range(3, 17):
        pictures = [
            render(scenes(label=label, centre=(32, 32), radius=radius), size=64)
            for label in range(len(SHAPES))
        ]
        assert len({picture.tobytes() for picture in pictures}) == len(SHAPES)


def test_centres_cover_all_places_where_the_shape_fits() -> None:
    drawn = invent(np.random.RandomState(0), 20_000, 16, 1, 2)
    for radius in np.unique(drawn.radius):
        centres = drawn.centre[drawn.radius == radius]
        assert set(np.unique(centres)) == set(range(radius, 16 - radius))


def test_classes_are_balanced() -> None:
    dataset = load("shapes:n=400:classes=5")
    assert np.all(np.bincount(dataset.train.labels) == 80)
    assert dataset.classes == tuple(SHAPES)[:5]
    assert len(dataset.test.labels) == 100


def test_same_seed_same_pictures_and_another_seed_others() -> None:
    first, again, other = (load(f"shapes:n=50:noise=4.0:seed={s}") for s in (1, 1, 2))
    assert first.checksum == again.checksum != other.checksum
    assert first.train.images[:12].tobytes() != first.test.images.tobytes()


def test_pictures_are_pinned() -> None:
    assert load("shapes:n=64").checksum[:16] == "d5677c9add489874"


def test_noise_has_the_level_asked_for() -> None:
    clean, noisy = load("shapes:n=200"), load("shapes:n=200:noise=5")
    middle = (clean.train.images > 80) & (clean.train.images < 180)
    difference = noisy.train.images.astype(int) - clean.train.images
    assert abs(difference[middle].std() - 5) < 0.1
    assert abs(difference[middle].mean()) < 0.1
    assert np.all(noisy.train.labels == clean.train.labels)


def test_subset_takes_its_truth_along() -> None:
    whole, part = load("shapes:n=200"), load("shapes:n=200:train=30")
    assert len(part.truth["train"]["centre"]) == len(part.train.labels) == 30
    assert part.truth["test"]["radius"].shape == whole.truth["test"]["radius"].shape
    for image, centre in zip(part.train.images, part.truth["train"]["centre"], strict=True):
        rows = np.nonzero(image.any(axis=(1, 2)))[0]
        assert rows.min() + rows.max() == 2 * centre[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shapes:size=15", "size=15: expected 16 or more"),
        ("shapes:n=0", "n=0: expected 1"),
        ("shapes:channels=0", "channels=0"),
        ("shapes:classes=1", "classes=1: expected 2"),
        ("shapes:classes=9", "classes=9: expected 2 to 8"),
        ("shapes:noise=-1.0", "noise=-1.0: expected 0"),
        ("shapes:noise=nan", "noise=nan"),
        ("shapes:noise=inf", "noise=inf"),
        ("shapes:seed=-1", "seed=-1"),
        ("shapes:seed=4294967296", "seed=4294967296"),
        ("shapes:size=big", "size=big: expected int"),
    ],
)
def test_parameters_that_cannot_be_drawn(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(spec)

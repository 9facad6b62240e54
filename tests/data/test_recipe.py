"""Recipes: a picture arrives as the network was trained on it, without the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import load
from cnnjax.data.recipe import Recipe


def saved(image: np.ndarray, path: Path) -> Path:
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
    return path


@pytest.mark.parametrize("spec", ["digits:test=20", "digits_canvas:test=20", "shapes:n=40"])
def test_a_set_s_own_pictures_arrive_bit_for_bit(spec: str, tmp_path: Path) -> None:
    dataset = load(spec)
    recipe = Recipe.of(dataset)
    for image in dataset.test.images[:5]:
        assert np.array_equal(recipe.read(saved(image, tmp_path / "x.png")), image)


def test_json_round_trip() -> None:
    recipe = Recipe.of(load("shapes:n=40"))
    again = Recipe(**json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.classes[0] == "disk" and again.mean == load("shapes:n=40").mean


def test_other_sizes_go_inside_the_margin(tmp_path: Path) -> None:
    recipe = Recipe.of(load("digits_canvas:test=20"))
    image = recipe.read(saved(np.full((50, 40, 3), 255, np.uint8), tmp_path / "white.png"))
    rows, columns = np.nonzero(image[..., 0])
    assert image.shape == (36, 36, 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 25, 10, 25)


def test_networks_that_take_no_pictures_say_so(tmp_path: Path) -> None:
    recipe = Recipe.of(load("shapes:n=40:channels=2"))
    with pytest.raises(ValueError, match=r"takes arrays of shape \(32, 32, 2\); pictures are"):
        recipe.read(tmp_path / "any.png")

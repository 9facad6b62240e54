"""Augmentation: identities at zero strength, properties of each row, chains and their text."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from cnnjax.ops import augmentation as aug
from cnnjax.ops.augmentation import AUGMENTATIONS, MIXINGS, OPERATIONS, parse

KEY = jax.random.key(0)
NOTHING = {
    "shift": {"pixels": 0},
    "crop": {"area": 1.0, "ratio": 1.0},
    "flip": {"chance": 0.0},
    "rotate": {"degrees": 0.0},
    "scale": {"factor": 1.0},
    "colour": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
    "cutout": {"size": 0},
    "randaugment": {"strength": 0.0},
}
STRONG = "shift+crop+flip+rotate+scale+colour+cutout:size=4+randaugment"


def images(count: int = 4, height: int = 12, width: int = 9, channels: int = 3) -> jax.Array:
    values = np.random.RandomState(0).randint(0, 256, (count, height, width, channels))
    return jnp.asarray(values, jnp.uint8)


def apply(text: str, x: jax.Array, key: jax.Array = KEY) -> np.ndarray:
    return np.asarray(compiled(text)(key, x))


@functools.cache
def compiled(text: str) -> Any:
    return jax.jit(functools.partial(aug.augment, parse(text)))


def one(name: str, x: jax.Array, key: jax.Array = KEY, **params: Any) -> np.ndarray:
    """Apply a row to one image."""
    row = AUGMENTATIONS[name]
    return np.asarray(row.function(key, x, **{**row.params, **params}))


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_zero_strength_is_the_identity(name: str, channels: int) -> None:
    for x in images(3, channels=channels):
        assert np.array_equal(one(name, x, **NOTHING[name]), x)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_dtype_and_range_are_kept_and_something_happens(name: str) -> None:
    x = images(8, channels=2)
    y = apply(name, x)
    assert y.shape == x.shape and y.dtype == np.uint8
    assert not np.array_equal(y, x)
    real = apply(name, x.astype(jnp.float32))
    assert real.dtype == np.float32
    assert np.abs(real - y).max() <= 1
    assert real.min() >= -1e-3 and real.max() <= 255.001


@pytest.mark.slow
def test_equal_keys_equal_draws_and_every_image_its_own() -> None:
    same = jnp.broadcast_to(images(1), (8, 12, 9, 3))
    y = apply(STRONG, same)
    assert np.array_equal(y, apply(STRONG, same))
    assert not np.array_equal(y, apply(STRONG, same, jax.random.key(1)))
    assert len({image.tobytes() for image in y}) == 8


def test_a_row_s_draw_depends_on_its_place() -> None:
    x = images(64)
    twice, once = apply("flip+flip", x), apply("flip", x)
    assert not np.array_equal(twice, x) and not np.array_equal(twice, once)


def test_flips() -> None:
    x = images()
    for image in x:
        turned = one("flip", image, chance=1.0)
        assert np.array_equal(turned, image[:, ::-1])
        assert np.array_equal(one("flip", jnp.asarray(turned), chance=1.0), image)
        both = one("flip", image, chance=1.0, vertical=True)
        assert np.array_equal(both, image[::-1, ::-1])
    many = apply("flip", jnp.broadcast_to(x[0], (400, *x.shape[1:])))
    share = np.mean([np.array_equal(image, x[0][:, ::-1]) for image in many])
    assert 0.4 < share < 0.6


def test_shift_moves_by_at_most_its_pixels() -> None:
    image = images(1)[0]
    places = {
        np.roll(image, (i, j), (0, 1)).tobytes(): (i, j) for i in range(-2, 3) for j in range(-2, 3)
    }
    drawn = apply("shift:pixels=2:boundary=circular", jnp.broadcast_to(image, (300, 12, 9, 3)))
    found = {places[moved.tobytes()] for moved in drawn}
    assert found == set(places.values())


@pytest.mark.slow
def test_crop_is_a_magnified_part() -> None:
    """Of a plane a + b i + c j every crop is a plane, less steep and within its values."""
    rows, columns = np.indices((24, 24))
    plane = jnp.asarray(10 + 4 * rows + 3 * columns, jnp.float32)[..., None]
    areas = []
    for seed in range(30):
        y = one("crop", plane, jax.random.key(seed), area=0.25, ratio=1.5)[2:-2, 2:-2, 0]
        down, right = np.diff(y, axis=0), np.diff(y, axis=1)
        assert np.ptp(down) < 0.01 and np.ptp(right) < 0.01
        sides = down.mean() / 4, right.mean() / 3
        assert max(sides) <= 1.0001
        areas.append(sides[0] * sides[1])
        assert y.min() >= 10 - 0.01 and y.max() <= plane.max() + 0.01
    assert min(areas) > 0.2 and max(areas) > 0.8


@pytest.mark.slow
def test_turning_there_and_back() -> None:
    rows, columns = np.indices((31, 31)) - 15.0
    bump = jnp.asarray(200 * np.exp(-(rows**2 + columns**2 / 3) / 24), jnp.float32)[..., None]
    turned = aug._affine(bump, degrees=30.0)
    assert np.abs(turned - bump).max() > 20
    assert np.abs(aug._affine(turned, degrees=-30.0) - bump).max() < 8
    angles = [one("rotate", bump, jax.random.key(i), degrees=20.0) for i in range(20)]
    far = np.abs(aug._affine(bump, degrees=20.0) - bump).sum()
    assert all(np.abs(a - bump).sum() <= 1.05 * far for a in angles)


@pytest.mark.slow
def test_scale_changes_what_is_covered() -> None:
    square = jnp.zeros((33, 33, 1)).at[12:21, 12:21].set(255.0)
    sums = [one("scale", square, jax.random.key(i), factor=2.0).sum() for i in range(60)]
    ratios = np.array(sums) / float(square.sum())
    assert 0.2 < ratios.min() < 0.5 and 2.0 < ratios.max() < 4.5


def test_colour_factors() -> None:
    x = images(1)[0].astype(jnp.float32)
    np.testing.assert_allclose(aug.brighten(x, 0.5), x / 2)
    assert np.ptp(aug.change_contrast(x, 0.0)) < 1e-3
    grey = np.asarray(aug.saturate(x, 0.0))
    np.testing.assert_allclose(grey, np.repeat(grey[..., :1], 3, axis=-1), atol=1e-3)
    np.testing.assert_allclose(grey[..., 0], np.asarray(x) @ [0.299, 0.587, 0.114], atol=1e-3)
    one_channel = x[..., :1]
    np.testing.assert_allclose(aug.saturate(one_channel, 0.3), one_channel, atol=1e-3)


def test_cutout_blackens_one_square() -> None:
    x = jnp.full((200, 16, 16, 1), 9, jnp.uint8)
    y = apply("cutout:size=6", x)
    black = (y == 0).sum(axis=(1, 2, 3))
    assert black.max() == 36 and black.min() >= 9
    for image in y[:20, ..., 0]:
        rows, columns = np.nonzero(image == 0)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert box == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_randaugment(name: str) -> None:
    x = images(1, 30, 20)[0].astype(jnp.float32)
    y = OPERATIONS[name](x, jnp.float32(0.0))
    np.testing.assert_allclose(y, x, atol=1e-3)
    changed = OPERATIONS[name](x, jnp.float32(0.8))
    assert changed.shape == x.shape
    assert np.array_equal(changed, x) == (name == "identity")
    assert changed.min() >= 0 and changed.max() <= 255


def pictures_to_stretch() -> Iterator[np.ndarray]:
    """Of few and of many values, narrow and wide, one constant, one too small to equalize."""
    rng = np.random.RandomState(0)
    for low, high, size in ((0, 256, 40), (90, 110, 33), (3, 5, 30), (7, 8, 20), (0, 256, 12)):
        yield rng.randint(low, high, (size, size + 3, 3)).astype(np.uint8)
    yield np.clip(rng.normal(120, 30, (50, 40, 3)) * (1, 0.5, 2), 0, 255).astype(np.uint8)
    yield rng.exponential(20, (23, 29, 3)).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("image", list(pictures_to_stretch()))
def test_equalize_and_autocontrast_are_pillow_s(image: np.ndarray) -> None:
    picture, x = Image.fromarray(image), jnp.asarray(image, jnp.float32)
    for one in (1.0, -0.2):
        equal = np.asarray(OPERATIONS["equalize"](x, jnp.float32(one)))
        assert np.array_equal(equal, ImageOps.equalize(picture))
        # Pillow truncates, at times a whole number that its scale has just missed.
        ours = np.asarray(OPERATIONS["autocontrast"](x, jnp.float32(one)), np.float64)
        below = ours - np.asarray(ImageOps.autocontrast(picture), np.float64)
        assert below.min() > -1e-4 and below.max() < 1 + 1e-4
    grey = np.asarray(OPERATIONS["equalize"](x[..., :1], jnp.float32(1.0)))[..., 0]
    assert np.array_equal(grey, ImageOps.equalize(Image.fromarray(image[..., 0])))


@pytest.mark.parametrize("name", MIXINGS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))])
def test_mixed_labels_sum_to_one_and_count_what_is_seen(name: str, seed: int) -> None:
    """Image k is constant k: what is left of it is read off the pixels."""
    count = 6
    x = jnp.broadcast_to(jnp.arange(count, dtype=jnp.float32)[:, None, None, None], (6, 8, 10, 1))
    targets = jnp.eye(count)
    y, mixed = aug.mix(parse(f"{name}:alpha=1.0"), jax.random.key(seed), x, targets)
    np.testing.assert_allclose(mixed.sum(axis=-1), 1.0, atol=1e-6)
    assert y.shape == x.shape and mixed.min() >= 0
    seen = np.asarray(y).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(seen, np.asarray(mixed) @ np.arange(count), atol=1e-4)
    kinds = {len(np.unique(image)) for image in np.asarray(y)}
    assert kinds <= {1, 2}


@pytest.mark.parametrize("name", MIXINGS)
def test_no_mixing_at_zero_strength(name: str) -> None:
    x, targets = images(), jnp.eye(4)
    y, mixed = aug.mix(parse(f"{name}:alpha=0.0"), KEY, x, targets)
    assert np.array_equal(y, x) and np.array_equal(mixed, targets)


def test_mixup_weights_are_beta() -> None:
    x, targets = jnp.zeros((2, 1, 1, 1)), jnp.eye(2)
    mixup = jax.jit(lambda key: aug.mixup(key, x, targets, alpha=0.4)[1][0].max())
    own = np.array([mixup(jax.random.key(i)) for i in range(200)])
    # max(w, 1 - w) of Beta(0.4, 0.4) has mean 0.83; half of the draws mix an image with itself.
    assert 0.88 < own.mean() < 0.95


def test_chains_read_back() -> None:
    chain = parse("flip+cutout:size=6+mixup")
    assert [name for name, _ in chain] == ["flip", "cutout", "mixup"]
    assert chain[1][1] == {"size": 6} and chain[2][1] == {"alpha": 0.2}
    assert parse("") == () and not aug.mixes(parse("flip")) and aug.mixes(chain)
    x = images()
    assert np.array_equal(aug.augment(parse("mixup"), KEY, x), x)
    assert aug.augment(parse(""), KEY, x) is x


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flop", "augment: unknown name 'flop'; did you mean flip"),
        ("flip+", "is empty"),
        ("cutout:sise=3", "augment cutout: unknown parameter 'sise'; did you mean size"),
        ("cutout:size=-1", "cutout: size=-1: expected 0 to 4096"),
        ("cutout:size=1.5", "size=1.5: expected int, as in cutout:size=8"),
        ("crop:area=0", "area=0: expected 0.01 to 1"),
        ("mixup:alpha=nan", "alpha=nan: expected 0 to 100"),
        ("shift:boundary=round", "shift: boundary: unknown name 'round'"),
        ("flip:vertical=2", "vertical=2: expected bool"),
    ],
)
def test_bad_chains(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        parse(text)
    assert "\n" not in str(raised.value)

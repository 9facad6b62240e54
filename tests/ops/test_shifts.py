"""Every family of `ops.shifts` against plain NumPy, over whole grids of offsets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import shifts

IMAGES = np.random.default_rng(0).integers(-9, 9, (3, 5, 7, 2)).astype(np.float32)
OFFSETS = [(0, 0), (1, 0), (0, -1), (2, 3), (-4, 6), (5, -7), (11, -20)]


def literal(image: np.ndarray, offset: tuple[int, int], boundary: str) -> np.ndarray:
    """Move one image pixel by pixel, with NumPy's own padding as the authority on borders."""
    reach = 32
    mode = {"circular": "wrap", "zeros": "constant", "edge": "edge", "reflect": "reflect"}
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode=mode[boundary])
    (height, width, _), (rows, columns) = image.shape, offset
    return wide[reach - rows :, reach - columns :][:height, :width]


@pytest.mark.parametrize("boundary", shifts.BOUNDARIES)
@pytest.mark.parametrize("offset", OFFSETS)
def test_whole_pixels_equal_a_padded_slice(boundary, offset):
    expected = np.stack([literal(image, offset, boundary) for image in IMAGES])
    np.testing.assert_array_equal(shifts.move(IMAGES, offset, boundary), expected)


@pytest.mark.parametrize("offset", OFFSETS)
def test_circular_is_roll_with_its_sign(offset):
    expected = np.roll(IMAGES, offset, axis=(1, 2))
    np.testing.assert_array_equal(shifts.move(IMAGES, offset), expected)


def test_zeros_moves_the_content_forward():
    x = jnp.zeros((4, 4, 1)).at[1, 1].set(1.0)
    assert shifts.move(x, (1, 2), "zeros")[2, 3, 0] == 1.0
    assert shifts.move(x, (3, 0), "zeros").sum() == 0.0


@pytest.mark.parametrize("family", [*shifts.BOUNDARIES, "crop:margin=2", "canvas:margin=2"])
def test_one_offset_per_image_under_jit(family):
    offsets = np.array([[0, 1], [-2, 2], [1, -1]])
    batched = jax.jit(lambda x, o: shifts.move(x, o, family))(IMAGES, offsets)
    single = [shifts.move(x, o, family) for x, o in zip(IMAGES, offsets, strict=True)]
    np.testing.assert_array_equal(batched, np.stack(single))
    assert batched.shape[1:3] == shifts.moved_size(IMAGES.shape[1:3], family)


@pytest.mark.parametrize("offset", [(0, 0), (2, -2), (-1, 1)])
def test_crop_is_a_window_and_canvas_a_black_frame(offset):
    rows, columns = offset
    window = IMAGES[:, 2 - rows : 3 - rows, 2 - columns : 5 - columns]
    np.testing.assert_array_equal(shifts.move(IMAGES, offset, "crop:margin=2"), window)
    frame = np.zeros((3, 9, 11, 2), np.float32)
    frame[:, 2 + rows : 7 + rows, 2 + columns : 9 + columns] = IMAGES
    np.testing.assert_array_equal(shifts.move(IMAGES, offset, "canvas:margin=2"), frame)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8, jnp.int32])
def test_dtype_is_kept(dtype):
    x = jnp.asarray(np.abs(IMAGES), dtype)
    for family in shifts.BOUNDARIES:
        assert shifts.move(x, (1, 1), family).dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_fourier_is_a_roll_at_integers_and_a_group_between(size):
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    rolled = np.roll(x, (3, -2), axis=(1, 2))
    np.testing.assert_allclose(shifts.move(x, (3.0, -2.0), "fourier"), rolled, atol=2e-6)
    if size[0] % 2:  # an even size loses its Nyquist bin at half a pixel
        halves = shifts.move(shifts.move(x, 0.5, "fourier"), 0.5, "fourier")
        np.testing.assert_allclose(halves, np.roll(x, (1, 1), axis=(1, 2)), atol=2e-6)


def test_fourier_moves_a_wave_by_a_fraction():
    place = np.arange(16)

    def wave(d):
        return np.cos(2 * np.pi * 3 * (place - d) / 16)[None, :, None]

    moved = shifts.move(np.asarray(wave(0), np.float32), (0.0, 0.3), "fourier")
    np.testing.assert_allclose(moved, wave(0.3), atol=1e-6)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_are_exact_up_to_rounding(turns):
    x = np.random.default_rng(2).normal(size=(6, 6, 2)).astype(np.float32)
    turned = shifts.move(x, 90.0 * turns, "rotate")
    np.testing.assert_allclose(turned, np.rot90(x, turns), atol=1e-5)


@pytest.mark.slow
def test_scale_keeps_the_centre_and_one_is_nothing():
    x = np.random.default_rng(3).normal(size=(2, 5, 5, 1)).astype(np.float32)
    np.testing.assert_array_equal(shifts.move(x, 1.0, "scale"), x)
    doubled = shifts.move(x, np.float32([2.0, 2.0]), "scale")
    np.testing.assert_allclose(doubled[:, ::2, ::2], x[:, 1:4, 1:4], atol=1e-6)


def test_affine_moves_after_turning():
    x = jnp.zeros((5, 5, 1)).at[2, 3].set(1.0)
    y = shifts.affine(x, degrees=90.0, offset=(1, 1))
    np.testing.assert_allclose(y[2, 3, 0], 1.0, atol=1e-6)


def test_offset_lists():
    offsets = shifts.all_offsets((2, 3))
    assert offsets.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert shifts.grid(1).tolist()[0] == [-1, -1] and len(shifts.grid(1)) == 9
    assert shifts.diagonal(3).tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: shifts.move(IMAGES, (1, 1), "circlar"), ValueError, "did you mean circular"),
        (lambda: shifts.move(IMAGES, (1, 1), "crop"), ValueError, "crop takes margin"),
        (lambda: shifts.move(IMAGES, (1, 1), "crop:margin=-1"), ValueError, "int >= 0"),
        (lambda: shifts.move(IMAGES, (1, 1), "zeros:margin=1"), ValueError, "no parameter"),
        (lambda: shifts.move(IMAGES, (0.5, 1.0)), TypeError, "whole pixels"),
        (lambda: shifts.move(IMAGES, (1, 2, 3)), ValueError, "rows, columns"),
        (lambda: shifts.move(IMAGES, np.zeros((2, 2), int)), ValueError, "does not fit"),
        (lambda: shifts.move(IMAGES[0, 0], (0, 0)), ValueError, "H, W, C"),
        (lambda: shifts.moved_size((5, 7), "crop:margin=3"), ValueError, "leaves nothing"),
        (lambda: shifts.check([[0, 3]], "crop:margin=2"), ValueError, "beyond the margin"),
        (lambda: shifts.check(np.zeros((0, 2), int), "zeros"), ValueError, "K, 2"),
        (lambda: shifts.check([[0.5, 0.0]], "zeros"), TypeError, "ints"),
        (lambda: shifts.check([0.0], "scale"), ValueError, "factors > 0"),
        (lambda: shifts.grid(-1), ValueError, "int >= 0"),
        (lambda: shifts.grid(1.5), TypeError, "int >= 0"),
    ],
)
def test_bad_input_is_one_line(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)

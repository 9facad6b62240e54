"""ops.filters: the matrices, the arithmetic of an image editor, borders; and `cnnjax filters`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnnjax.cli import filters as command
from cnnjax.cli import main
from cnnjax.ops import filters, lowpass
from cnnjax.ops.filters import FILTERS, Filter, apply, normalised

RAMP = jnp.asarray(np.arange(2 * 5 * 6 * 3).reshape(2, 5, 6, 3), "float32")


def by_hand(x, matrix, divisor, offset, mode):
    """The definition, in loops: correlation, then / divisor + offset."""
    matrix = np.asarray(matrix, float)
    kh, kw = matrix.shape
    sides = ((0, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2), (0, 0))
    padded = np.asarray(x, float) if mode is None else np.pad(np.asarray(x, float), sides, mode)
    height, width = padded.shape[1] - kh + 1, padded.shape[2] - kw + 1
    y = np.zeros((x.shape[0], height, width, x.shape[3]))
    for i in range(kh):
        for j in range(kw):
            y += matrix[i, j] * padded[:, i : i + height, j : j + width]
    return y / divisor + offset


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("border", "mode"), [("extend", "edge"), ("wrap", "wrap"), ("crop", None)])
def test_filters_follow_the_definition(name, border, mode):
    item = FILTERS[name]
    x = jnp.concatenate([RAMP, RAMP[:, ::-1]], 1) if len(item.matrix) > 5 else RAMP
    x = jnp.concatenate([x, x[:, :, ::-1]], 2)
    want = by_hand(x, item.matrix, item.divisor, item.offset, mode)
    got = apply(x, item, border=border)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)


def test_the_five_of_the_manual():
    """An independent copy of the table, and what each does to a constant image."""
    table = {
        "sharpen": ([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1, 1.0),
        "blur": ([[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9, 1.0),
        "edge_enhance": ([[0, 0, 0], [-1, 1, 0], [0, 0, 0]], 1, 0.0),
        "edge_detect": ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], 1, 0.0),
        "emboss": ([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], 1, 1.0),
    }
    for name, (matrix, divisor, gain) in table.items():
        item = FILTERS[name]
        assert np.array_equal(item.matrix, matrix) and item.divisor == divisor and not item.offset
        np.testing.assert_allclose(apply(jnp.full((4, 4, 1), 0.5), item), 0.5 * gain, rtol=1e-6)


def test_the_worked_example_moves_the_image_one_pixel_down():
    item = Filter(((0, 1, 0), (0, 0, 0), (0, 0, 0)))
    np.testing.assert_array_equal(apply(RAMP, item, border="wrap"), jnp.roll(RAMP, 1, 1))


@pytest.mark.parametrize(
    ("matrix", "divisor", "offset"),
    [(((1, 2), (3, 4)), 10, 0), (((-1, 1),), 1, 0.5), (((-3, 1),), 2, 1)],
)
def test_automatic_divisor_and_offset(matrix, divisor, offset):
    item = normalised(matrix)
    assert (item.divisor, item.offset) == (divisor, offset)


def test_low_passes_keep_constants_and_are_symmetric():
    lows = [filters.box(4), filters.binomial_filter(5), filters.gaussian(7, 1.5)]
    for item in lows:
        matrix = np.asarray(item.matrix) / item.divisor
        np.testing.assert_allclose(matrix.sum(), 1, rtol=1e-12)
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(matrix, matrix[::-1, ::-1])
    np.testing.assert_array_equal(filters.binomial(5), np.array([1, 4, 6, 4, 1]) / 16)
    assert filters.binomial_filter(3).matrix == ((1, 2, 1), (2, 4, 2), (1, 2, 1))
    ratio = filters.gaussian(3, 2.0).matrix
    np.testing.assert_allclose(ratio[1][0] / ratio[1][1], np.exp(-1 / 8))


def test_slopes_point_right_and_down():
    rows, columns = jnp.meshgrid(jnp.arange(5.0), jnp.arange(6.0), indexing="ij")
    inner = (slice(1, -1), slice(1, -1))
    for name, ramp, other in (("sobel_x", columns, rows), ("sobel_y", rows, columns)):
        slope, none = (apply(m[..., None], FILTERS[name])[inner] - 0.5 for m in (ramp, other))
        np.testing.assert_array_equal(slope, jnp.ones_like(slope))
        np.testing.assert_array_equal(none, jnp.zeros_like(none))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: apply(RAMP, FILTERS["blur"], border="mirror"), ValueError, "border: unknown name"),
        (lambda: apply(RAMP, "blur"), TypeError, "filter: expected a Filter"),
        (lambda: apply(RAMP.astype(int), FILTERS["blur"]), TypeError, "x: expected floating"),
        (lambda: apply(RAMP[:, :2, :2], FILTERS["blur"], border="crop"), ValueError, "window: "),
        (lambda: Filter(((1, 2), (3,))), ValueError, "matrix: expected rows of equal length"),
        (lambda: Filter(()), ValueError, "matrix: expected rows"),
        (lambda: Filter(3), TypeError, "matrix: expected rows of numbers"),
        (lambda: Filter(((np.nan,),)), ValueError, "matrix: expected finite"),
        (lambda: Filter(((1,),), 0), ValueError, "divisor: expected a number other than 0"),
        (lambda: Filter(((1,),), 1, np.inf), ValueError, "offset: expected a finite number"),
        (lambda: Filter(((1,),), "2"), TypeError, "divisor: expected a number"),
        (lambda: filters.box(0), ValueError, "size: expected an int >= 1"),
        (lambda: filters.box(2.0), TypeError, "size: expected an int >= 1"),
        (lambda: filters.gaussian(3, 0), ValueError, "sigma: expected a number > 0"),
        (lambda: filters.gaussian(3, "1"), TypeError, "sigma: expected a number > 0"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), "uint8")
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.slow
def test_gallery(photo, tmp_path, capsys):
    out = tmp_path / "new" / "gallery"
    assert main(["filters", str(photo), f"--out={out}", "--border", "wrap"]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {f"{name}.png" for name in FILTERS} | {"sheet.png"}
    assert len(capsys.readouterr().out.splitlines()) == len(names)
    image = command.read(photo)
    for name, item in FILTERS.items():
        with Image.open(out / f"{name}.png") as written:
            want = np.clip(apply(jnp.asarray(image), item, border="wrap"), 0, 1) * 255
            np.testing.assert_array_equal(np.asarray(written), np.round(want))
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 4 * command.TILE and len(sheet.getcolors(10**6)) > 100


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_any_kind_of_image_is_read(mode, tmp_path):
    path = tmp_path / ("image.tif" if mode in ("CMYK", "I;16") else "image.png")
    Image.new(mode, (5, 4)).save(path)
    assert command.read(path).shape == (4, 5, 3)


def test_a_picture_is_read_as_it_is_meant_to_be_seen(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.full((4, 5), 3 << 14, np.uint16)).save(path)
    assert np.abs(command.read(path) - 0.75).max() < 0.005  # of 16 bits the upper 8
    Image.new("RGBA", (5, 4), (255, 0, 0, 0)).save(path)
    assert command.read(path).min() == 1  # transparent: the white below
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert command.read(tmp_path / "turned.jpg").shape == (6, 4, 3)


@pytest.mark.parametrize("sigma", [0.01, 1e-200, 5e-324, 1.0, 1e300])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_gaussians_of_any_width_have_sum_1(size, sigma):
    made = filters.gaussian(size, sigma)
    assert np.sum(made.matrix) / made.divisor == pytest.approx(1) and made.offset == 0
    x = jnp.ones((1, 6, 6, 1))
    y = lowpass.gaussian_blur(x, stride=(2, 2), filter_size=size, sigma=sigma)
    np.testing.assert_allclose(y, 1, rtol=1e-6)


def test_mistakes_are_one_line(photo, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:200])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    out = f"--out={tmp_path / 'out'}"
    cases = {
        (): "expected one image file",
        (str(photo),): "--out: expected a directory",
        (str(photo), str(photo), out): "expected one image file",
        (str(tmp_path / "none.png"), out): "no file",
        (str(tmp_path), out): "no file",
        (str(broken), out): "cannot read",
        (str(text), out): "cannot read",
        (str(photo), out, "--border=warp"): "did you mean wrap",
        (str(photo), f"--out={text}"): "text.jpg",
    }
    for words, message in cases.items():
        assert main(["filters", *words]) == 2, words
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1, error

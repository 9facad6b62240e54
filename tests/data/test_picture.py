"""Pictures of every kind and size: what arrives, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import picture
from cnnjax.data.picture import Frame, UnreadablePicture, decode

LOSSLESS = [("png", {}), ("bmp", {}), ("webp", {"lossless": True})]


def noise(height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    values = np.random.RandomState(seed).randint(0, 256, (height, width, channels))
    return values.astype(np.uint8)


def encoded(array: np.ndarray, kind: str = "png", mode: str | None = None, **how: Any) -> bytes:
    buffer = io.BytesIO()
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    image = Image.fromarray(squeezed)
    (image.convert(mode) if mode else image).save(buffer, kind, **how)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "how"), LOSSLESS)
@pytest.mark.parametrize("fit", picture.FITS)
def test_a_picture_of_the_right_size_arrives_bit_for_bit(
    kind: str, how: dict[str, Any], fit: str
) -> None:
    image = noise()
    assert np.array_equal(decode(encoded(image, kind, **how), Frame(32, 3, fit)), image)


@pytest.mark.parametrize(("kind", "far"), [("jpeg", 12.0), ("gif", 12.0), ("webp", 12.0)])
def test_lossy_kinds_arrive_nearly(kind: str, far: float) -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (32, 32, 3))
    found = decode(encoded(np.ascontiguousarray(ramp), kind), Frame(32))
    assert np.abs(found.astype(int) - ramp).mean() < far


def test_grey_and_colour_become_each_other() -> None:
    grey = noise(channels=1)
    assert np.array_equal(decode(encoded(grey), Frame(32, 3)), np.repeat(grey, 3, axis=-1))
    colour = noise()
    expected = colour.astype(float) @ [0.299, 0.587, 0.114]
    found = decode(encoded(colour), Frame(32, 1))
    assert found.shape == (32, 32, 1)
    assert np.abs(found[..., 0] - expected).max() <= 1


def test_sixteen_bits_keep_their_upper_byte() -> None:
    values = np.random.RandomState(0).randint(0, 65536, (32, 32)).astype(np.uint16)
    assert np.array_equal(decode(encoded(values), Frame(32, 1))[..., 0], values >> 8)


def test_transparency_lies_over_white() -> None:
    clear = noise(channels=4)
    alpha = clear[..., 3:].astype(float) / 255
    expected = alpha * clear[..., :3] + (1 - alpha) * 255
    assert np.abs(decode(encoded(clear), Frame(32)) - expected).max() <= 1
    invisible = np.zeros((32, 32, 4), np.uint8)
    assert decode(encoded(invisible), Frame(32)).min() == 255
    palette = Image.fromarray(np.zeros((32, 32), np.uint8), "L").convert("P")
    buffer = io.BytesIO()
    palette.save(buffer, "png", transparency=0)
    assert decode(buffer.getvalue(), Frame(32, 1)).min() == 255


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation(orientation: int, upright: Any) -> None:
    image, exif = noise(), Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encoded(image, exif=exif), Frame(32)), upright(image))


def test_fits() -> None:
    """A wide picture whose left, middle and right thirds are red, green and blue."""
    wide = np.zeros((20, 60, 3), np.uint8)
    for third in range(3):
        wide[:, 20 * third : 20 * third + 20, third] = 255
    crop, pad, stretch = (decode(encoded(wide), Frame(30, 3, fit)) for fit in picture.FITS)
    assert crop[:, 2:-2, 1].min() == 255 and crop[:, 2:-2, [0, 2]].max() == 0
    assert pad[:10].max() == 0 and pad[20:].max() == 0 and pad[15, 2, 0] > 200
    for third in range(3):
        assert stretch[:, 10 * third + 5, third].min() > 250


@pytest.mark.parametrize("fit", picture.FITS)
@pytest.mark.parametrize("size", [(3000, 2), (2, 3000)])
def test_a_thin_strip_does_not_vanish(fit: str, size: tuple[int, int]) -> None:
    assert decode(encoded(np.full(size, 200, np.uint8)), Frame(8, 1, fit)).max() == 200


def test_shrinking_averages_and_a_large_jpeg_looks_like_its_png() -> None:
    fine = np.indices((512, 512)).sum(axis=0)[..., None] % 2 * np.full(3, 255)
    found = decode(encoded(fine.astype(np.uint8)), Frame(32))
    assert np.abs(found.astype(int) - 127).max() <= 1
    smooth = noise(16, 16).repeat(40, axis=0).repeat(40, axis=1)
    by_jpeg = decode(encoded(smooth, "jpeg", quality=95), Frame(32)).astype(int)
    assert np.abs(by_jpeg - decode(encoded(smooth), Frame(32))).mean() < 4


def test_the_first_frame_of_an_animation() -> None:
    first, second = (Image.fromarray(np.full((32, 32), v, np.uint8)) for v in (40, 200))
    buffer = io.BytesIO()
    first.save(buffer, "gif", save_all=True, append_images=[second])
    assert decode(buffer.getvalue(), Frame(32, 1)).max() == 40


def bomb(side: int) -> bytes:
    """A PNG whose header announces side x side pixels and which holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        sum_ = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", sum_)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, this is no picture at all", "not a picture of a known kind"),
        (encoded(noise())[:-900], "not a whole picture"),
        (encoded(noise(64, 64), "jpeg")[:-200], "not a whole picture"),
        (encoded(noise(), "tiff"), "not a picture of a known kind"),
        (bomb(8000), "8000 x 8000 pixels, more than 50,000,000: not decoded"),
        (bomb(10_000), "pixels"),
        (bomb(60_000), "more than 50,000,000 pixels: not decoded"),
    ],
)
def test_what_is_no_picture_is_said_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadablePicture, match=reason) as raised:
        decode(content, Frame(32))
    assert "\n" not in str(raised.value)


def test_read_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    for name in ("a.png", "missing.png"):
        with pytest.raises(UnreadablePicture, match=name):
            picture.read(tmp_path / name, Frame(32))
        with pytest.raises(UnreadablePicture, match=name):
            picture.size(tmp_path / name)
    (tmp_path / "b.png").write_bytes(encoded(noise(20, 30)))
    assert picture.size(tmp_path / "b.png") == (20, 30)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": 0}, "size=0: expected 1 to 4096"),
        ({"size": 5000}, "size=5000"),
        ({"channels": 2}, "channels=2: .* 1 .grey. or 3"),
        ({"fit": "squeeze"}, "fit=squeeze: expected one of crop, pad, stretch"),
    ],
)
def test_frames_that_cannot_be(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Frame(**{"size": 32, **wrong})

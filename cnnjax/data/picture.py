"""Reading one picture, whatever its kind and size: file -> (size, size, channels) uint8.

    image = read("cat.png", Frame(size=32, channels=3))         # (32, 32, 3) uint8

The first frame of an animation is taken, the EXIF orientation is applied, transparency is laid over
white, and of 16 bits a channel the upper 8 are kept. A picture that has the size asked for is not
resampled: its pixels arrive as they are.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
MOST_PIXELS = 50_000_000
BACKGROUND = "white"
MODES = {1: "L", 3: "RGB"}
# A JPEG that is far larger than needed is decoded at a half, a quarter or an eighth of its size,
# but never below this many times the size asked for.
SPARE = 2

_one_at_a_time = threading.Lock()


class UnreadablePicture(OSError):
    """A file is no whole picture of a known kind, or too large to be one."""


@dataclass(frozen=True)
class Frame:
    """What every picture is made into: `size` x `size` pixels of 1 (grey) or 3 (RGB) channels.

    fit: "crop" scales the shorter side to `size` and cuts the middle out; "pad" scales the longer
    side and puts black around; "stretch" scales both, whatever that does to the proportions.
    """

    size: int
    channels: int = 3
    fit: str = "crop"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise ValueError(f"size={self.size}: expected 1 to 4096 pixels")
        if self.channels not in MODES:
            raise ValueError(f"channels={self.channels}: a picture gives 1 (grey) or 3 (RGB)")
        if self.fit not in FITS:
            raise ValueError(f"fit={self.fit}: expected one of {', '.join(FITS)}")


def read(path: str | os.PathLike[str], frame: Frame) -> np.ndarray:
    """Return the picture as (size, size, channels) uint8; UnreadablePicture naming the file."""
    with _naming(path):
        return decode(Path(path).read_bytes(), frame)


def size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return height and width as the file's header has them; UnreadablePicture naming the file."""
    try:
        image = _open(Path(path).read_bytes())
    except OSError as error:
        raise UnreadablePicture(f"{path}: {error.strerror or error}") from error
    return image.height, image.width


def read_whole(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the picture, TIFF as well, in its own size as (H, W, 3) uint8.

    Raises UnreadablePicture naming the file.
    """
    with _naming(path):
        content = Path(path).read_bytes()
        return np.asarray(_upright(content, MODES[3], formats=(*FORMATS, "TIFF")), np.uint8)


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before the reason that it is not read."""
    try:
        yield
    except UnreadablePicture as error:
        raise UnreadablePicture(f"{path}: {error}") from error
    except OSError as error:
        raise UnreadablePicture(f"{path}: {error.strerror or error}") from error


def decode(content: bytes, frame: Frame) -> np.ndarray:
    """Return the bytes of a file as (size, size, channels) uint8; UnreadablePicture says why not.

    A header that announces more than MOST_PIXELS pixels is refused before they are decoded.
    """
    image = _upright(content, MODES[frame.channels], least=SPARE * frame.size)
    fitted = FITS[frame.fit](image, frame.size)
    return np.asarray(fitted, np.uint8).reshape(frame.size, frame.size, frame.channels)


def _upright(
    content: bytes, mode: str, *, least: int | None = None, formats: tuple[str, ...] = FORMATS
) -> Any:
    """Return the picture as it is meant to be seen; a JPEG far larger than `least` made smaller."""
    from PIL import ImageOps

    if not content:
        raise UnreadablePicture("the file is empty")
    image = _open(content, formats)
    if image.width * image.height > MOST_PIXELS:
        raise UnreadablePicture(
            f"{image.width} x {image.height} pixels, more than {MOST_PIXELS:,}: not decoded"
        )
    try:
        if least is not None:
            image.draft(None, (least, least))
        return _flat(ImageOps.exif_transpose(image), mode)
    except Exception as error:  # a damaged file can raise nearly any built-in exception
        raise UnreadablePicture(f"not a whole picture ({_reason(error)})") from error


def _open(content: bytes, formats: tuple[str, ...] = FORMATS) -> Any:
    from PIL import Image

    # Pillow only warns of a decompression bomb, through filters that all threads share.
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(content), formats=formats)
        except Image.DecompressionBombError as error:
            raise UnreadablePicture(f"more than {MOST_PIXELS:,} pixels: not decoded") from error
        except Image.UnidentifiedImageError:
            raise UnreadablePicture(
                f"not a picture of a known kind ({', '.join(formats)})"
            ) from None
        except Exception as error:
            raise UnreadablePicture(f"not a whole picture ({_reason(error)})") from error


def _flat(image: Any, mode: str) -> Any:
    """Return the image in 8 bits and `mode`, transparency laid over the background."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype("u1"))
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        below = Image.new("RGBA", clear.size, BACKGROUND)
        image = Image.alpha_composite(below, clear)
    return image.convert(mode)


def _crop(image: Any, size: int) -> Any:
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def _pad(image: Any, size: int) -> Any:
    from PIL import Image, ImageOps

    # Of a thin strip at least a line: ImageOps.pad rounds it to none and gives black.
    inner = [max(1, round(n / max(image.size) * size)) for n in image.size]
    fitted = image.resize(inner, Image.Resampling.BILINEAR)
    return ImageOps.pad(fitted, (size, size), Image.Resampling.BILINEAR)


def _stretch(image: Any, size: int) -> Any:
    from PIL import Image

    return image.resize((size, size), Image.Resampling.BILINEAR)


# Pillow's bilinear filter widens with the scale, so that shrinking does not alias.
FITS: Mapping[str, Callable[[Any, int], Any]] = {"crop": _crop, "pad": _pad, "stretch": _stretch}


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__

"""usage: cnnjax filters IMAGE --out DIR [--border extend|wrap|crop]

Show an image through the classic convolution kernels: one PNG a filter, and sheet.png with every
picture beside its matrix.

  cnnjax filters photo.jpg --out gallery
  cnnjax filters photo.jpg --out gallery --border wrap
"""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cnnjax import spec
from cnnjax.cli.flags import Flags
from cnnjax.data.picture import UnreadablePicture, read_whole
from cnnjax.ops.filters import BORDERS, FILTERS, Filter, apply

TILE, MARGIN, COLUMNS = 240, 16, 2
INK, PAPER = (20, 20, 20), (255, 255, 255)


def main(argv: list[str]) -> int:
    """Run `cnnjax filters`; return the exit status."""
    flags = Flags("filters", __doc__ or "")
    flags.string("out", None, "directory that receives the pictures (required)")
    flags.string("border", "extend", f"pixels outside the image: {', '.join(BORDERS)}")
    words = flags.parse(argv)
    if words is None:
        return 0
    if len(words) != 1:
        raise ValueError(f"expected one image file, got {words}")
    if not flags.out:
        raise ValueError("--out: expected a directory for the pictures")
    spec.find(BORDERS, flags.border, "--border")
    image = read(Path(words[0]))
    for path in gallery(image, Path(flags.out), border=flags.border):
        print(path)
    return 0


def read(path: Path) -> np.ndarray:
    """Return an image file as (H, W, 3) float32 in [0, 1]; OSError where it cannot be read."""
    if not path.is_file():
        raise FileNotFoundError(f"IMAGE: no file {str(path)!r}")
    try:
        return read_whole(path).astype(np.float32) / 255
    except UnreadablePicture as error:
        raise OSError(f"IMAGE: cannot read {error}") from error


def gallery(image: np.ndarray, directory: Path, *, border: str) -> list[Path]:
    """Write NAME.png for every filter, and sheet.png; return the paths."""
    least = max(len(filter.matrix) for filter in FILTERS.values())
    if border == "crop" and min(image.shape[:2]) < least:
        raise ValueError(
            f"--border: 'crop' leaves nothing of {image.shape[0]} x {image.shape[1]} pixels; "
            f"allowed: extend or wrap, or an image of {least} x {least} or more"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(
            f"--out: expected a directory, got the file {str(directory)!r}"
        ) from None
    paths, tiles = [], [tile("original", None, image)]
    for name, filter in FILTERS.items():
        filtered = np.asarray(apply(jnp.asarray(image), filter, border=border))
        path = directory / f"{name}.png"
        picture(filtered).save(path)
        paths.append(path)
        tiles.append(tile(name, filter, filtered))
    path = directory / "sheet.png"
    sheet(tiles).save(path)
    return [*paths, path]


def picture(values: np.ndarray) -> Image.Image:
    """Return values (H, W, 3), 0 black and 1 white, as an image; what lies outside is clipped."""
    return Image.fromarray(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))


def tile(name: str, filter: Filter | None, values: np.ndarray) -> Image.Image:
    """Return one field of the sheet: the picture, and beside it its name and matrix."""
    result = Image.new("RGB", (2 * TILE + 3 * MARGIN, TILE + 2 * MARGIN), PAPER)
    shown = picture(values)
    # Small images grow by whole pixels, large ones are averaged down.
    scale = TILE / max(shown.size)
    size = max(1, round(shown.width * scale)), max(1, round(shown.height * scale))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    result.paste(shown.resize(size, method), (MARGIN, MARGIN))
    draw, left = ImageDraw.Draw(result), TILE + 2 * MARGIN
    draw.text((left, MARGIN), name.replace("_", " "), INK, font=ImageFont.load_default(20))
    if filter is not None:
        draw.text((left, MARGIN + 28), filter.summary, INK, font=ImageFont.load_default(12))
        _draw_matrix(draw, filter, left, MARGIN + 54)
    return result


def sheet(tiles: list[Image.Image]) -> Image.Image:
    """Return the tiles in rows of two."""
    width, height = tiles[0].size
    rows = -(-len(tiles) // COLUMNS)
    result = Image.new("RGB", (COLUMNS * width, rows * height), PAPER)
    for position, item in enumerate(tiles):
        row, column = divmod(position, COLUMNS)
        result.paste(item, (column * width, row * height))
    return result


def _draw_matrix(draw: ImageDraw.ImageDraw, filter: Filter, left: int, top: int) -> None:
    count = len(filter.matrix)
    cell = min(36, (TILE - 60) // count)
    font = ImageFont.load_default(max(8, cell // 3))
    for i, row in enumerate(filter.matrix):
        for j, number in enumerate(row):
            x, y = left + j * cell, top + i * cell
            draw.rectangle((x, y, x + cell, y + cell), outline=INK)
            draw.text((x + cell / 2, y + cell / 2), f"{number:.2g}", INK, font=font, anchor="mm")
    note = f"/ {filter.divisor:.4g}   + {filter.offset:g}"
    draw.text((left, top + count * cell + 8), note, INK, font=ImageFont.load_default(12))

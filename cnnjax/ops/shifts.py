"""Moving images, x (..., H, W, C) -> (..., H', W', C): what augmentation and evaluation share.

    y = shifts.move(x, offset, "zeros")            # offset (2,), or one per image: (..., 2)
    y = shifts.move(x, offset, "crop:margin=4")    # a window that slides over a larger image
    y = shifts.move(x, 0.5, "fourier")             # sub-pixel
    offsets = shifts.all_offsets((32, 32))         # (1024, 2), row-major

The content moves by +offset, as in `jnp.roll`: y[i, j] = x[i - rows, j - columns]. Offsets may be
traced and differ from image to image. Everything but "fourier", "rotate" and "scale" only moves
pixels, so it is exact in any dtype.

| family | what comes in at the border | offset |
|---|---|---|
| circular | what left on the other side | ints |
| zeros, edge, reflect | zeros, the last pixel, the mirror image | ints |
| crop:margin=m | the rest of the larger image: H' = H - 2m | ints, at most m |
| canvas:margin=m | nothing: the image moves over black, H' = H + 2m | ints, at most m |
| fourier | what left on the other side | real: band-limited interpolation |
| rotate | zeros | degrees, counterclockwise |
| scale | zeros | factor, about the centre |
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import spec
from cnnjax.ops import padding as pads

BOUNDARIES = ("circular", "zeros", "edge", "reflect")


def move(x: jax.Array, offset: Any, family: str = "circular") -> jax.Array:
    """Move every image of x (..., H, W, C) by its offset, shape (2,) or (..., 2).

    A scalar offset means the same for both axes; for rotate and scale it is the angle or factor,
    shape () or (...,). Raises ValueError for an unknown family or a shape that does not fit,
    TypeError for a fractional offset of a family that moves whole pixels.
    """
    pads.spatial_size(x)
    card, params = find(family)
    offset = _offset(offset, card, family)
    shared = offset.ndim == card.axes
    if not shared and offset.shape != (*x.shape[:-3], *(2,) * card.axes):
        raise ValueError(
            f"offset: shape {offset.shape} does not fit images of shape {x.shape}; "
            "allowed: one offset for all or one per image"
        )
    one: Callable[..., jax.Array] = functools.partial(card.function, **params)
    for _ in x.shape[:-3]:
        one = jax.vmap(one, in_axes=(0, None if shared else 0))
    return one(x, offset)


def translate(image: jax.Array, offset: jax.Array, *, boundary: str = "circular") -> jax.Array:
    """Move one image (H, W, C) by whole pixels; any offset, however large."""
    for axis in (0, 1):
        place = jnp.arange(image.shape[axis]) - offset[axis]
        image = _take(image, place, axis, boundary)
    return image


def crop(image: jax.Array, offset: jax.Array, *, margin: int) -> jax.Array:
    """Cut the window (H - 2 margin, W - 2 margin) that sees the content moved by offset.

    Past the margin the last pixel repeats; `check` refuses such offsets beforehand.
    """
    height, width = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    if margin < 0 or min(height, width) < 1:
        raise ValueError(f"margin: {margin} leaves nothing of an image {image.shape[:2]}")
    moved = translate(image, offset, boundary="edge")
    return moved[margin : margin + height, margin : margin + width]


def canvas(image: jax.Array, offset: jax.Array, *, margin: int) -> jax.Array:
    """Place the image on a black canvas (H + 2 margin, W + 2 margin), offset from its centre."""
    if margin < 0:
        raise ValueError(f"margin: expected an int >= 0, got {margin!r}")
    wide = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    return translate(wide, offset, boundary="zeros")


def fourier(image: jax.Array, offset: jax.Array) -> jax.Array:
    """Circular sub-pixel shift by band-limited interpolation; an integer offset is a roll.

    The Nyquist bin of an even size has no phase of its own and is scaled by cos(pi offset), which
    keeps the result real.
    """
    moved = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    for axis in (0, 1):
        size = image.shape[axis]
        turns = jnp.fft.rfftfreq(size) * offset[axis]
        phase = jnp.exp(-2j * jnp.pi * turns)[:, None, None]
        spectrum = jnp.fft.rfft(jnp.moveaxis(moved, axis, 0), axis=0) * phase
        moved = jnp.moveaxis(jnp.fft.irfft(spectrum, n=size, axis=0), 0, axis)
    return moved.astype(image.dtype)


def rotate(image: jax.Array, degrees: jax.Array, *, boundary: str = "zeros") -> jax.Array:
    """Turn one image (H, W, C) counterclockwise about its centre, bilinear."""
    return affine(image, degrees=degrees, boundary=boundary)


def scale(image: jax.Array, factor: jax.Array, *, boundary: str = "zeros") -> jax.Array:
    """Enlarge (factor > 1) or shrink one image (H, W, C) about its centre, bilinear."""
    return affine(image, factor=factor, boundary=boundary)


def affine(
    image: jax.Array,
    *,
    degrees: Any = 0.0,
    factor: Any = 1.0,
    offset: Any = (0.0, 0.0),
    boundary: str = "zeros",
) -> jax.Array:
    """Turn and scale one image about its centre, then move it; bilinear between pixels."""
    height, width, _ = image.shape
    rows = jnp.arange(height)[:, None] - (height - 1) / 2 - offset[0]
    columns = jnp.arange(width)[None, :] - (width - 1) / 2 - offset[1]
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle) / factor, jnp.sin(angle) / factor
    source = cos * rows + sin * columns, cos * columns - sin * rows
    return bilinear(
        image, source[0] + (height - 1) / 2, source[1] + (width - 1) / 2, boundary=boundary
    )


@dataclass(frozen=True)
class Family:
    """One way to move an image: `function(image (H, W, C), offset, **params)`.

    `axes` is the rank of one offset (1: rows and columns, 0: a single number), `whole` whether it
    must be an integer.
    """

    function: Callable[..., jax.Array]
    axes: int = 1
    whole: bool = True
    params: tuple[str, ...] = ()


FAMILIES: Mapping[str, Family] = {
    **{name: Family(functools.partial(translate, boundary=name)) for name in BOUNDARIES},
    "crop": Family(crop, params=("margin",)),
    "canvas": Family(canvas, params=("margin",)),
    "fourier": Family(fourier, whole=False),
    "rotate": Family(rotate, axes=0, whole=False),
    "scale": Family(scale, axes=0, whole=False),
}


def find(family: str) -> tuple[Family, dict[str, Any]]:
    """Read "crop:margin=4" into its card and parameters; ValueError says what is allowed."""
    name, params = spec.parse(family)
    card = spec.find(FAMILIES, name, "boundary")
    if set(params) != set(card.params):
        takes = ", ".join(f"{key}=..." for key in card.params) or "no parameter"
        raise ValueError(f"boundary: {family!r}: {name} takes {takes}")
    for key, value in params.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"boundary: {family!r}: {key} must be an int >= 0, got {value!r}")
    return card, params


def moved_size(size: pads.Pair, family: str) -> pads.Pair:
    """Return (H', W') of images (H, W) moved within a family; ValueError where nothing is left."""
    card, params = find(family)
    growth = {crop: -2, canvas: 2}.get(card.function, 0) * params.get("margin", 0)
    height, width = size[0] + growth, size[1] + growth
    if min(height, width) < 1:
        raise ValueError(f"boundary: {family!r} leaves nothing of an image {size[0]} x {size[1]}")
    return height, width


def check(offsets: Any, family: str) -> np.ndarray:
    """Return concrete offsets (K, 2), or (K,), as an array; ValueError for any the family lacks."""
    card, params = find(family)
    array = np.asarray(offsets)
    expected = "(K, 2)" if card.axes else "(K,)"
    if array.ndim != card.axes + 1 or array.shape[1:] != (2,) * card.axes or not len(array):
        raise ValueError(f"shifts: {family} takes shape {expected}, got {array.shape}")
    if array.dtype.kind not in ("iu" if card.whole else "iuf"):
        kind = "ints" if card.whole else "real numbers"
        raise TypeError(f"shifts: {family} takes {kind}, got an array of {array.dtype}")
    far = int(np.abs(array).max()) if card.params else 0
    if card.params and far > params["margin"]:
        raise ValueError(f"shifts: {far} px is beyond the margin of {family!r}")
    if card.function is scale and array.min() <= 0:
        raise ValueError(f"shifts: scale takes factors > 0, got {array.min()}")
    return array


def all_offsets(size: pads.Pair) -> np.ndarray:
    """All H*W circular offsets (H*W, 2), row-major: row r is (r // W, r % W)."""
    return np.indices(size).reshape(2, -1).T


def grid(radius: int) -> np.ndarray:
    """All offsets within radius pixels along either axis, ((2r + 1)^2, 2), row-major."""
    if isinstance(radius, bool) or not isinstance(radius, (int, np.integer)):
        raise TypeError(f"radius: expected an int >= 0, got {radius!r}")
    if radius < 0:
        raise ValueError(f"radius: expected an int >= 0, got {radius!r}")
    return all_offsets((2 * radius + 1, 2 * radius + 1)) - radius


def diagonal(count: int) -> np.ndarray:
    """Offsets (0, 0), (1, 1), ... (count, 2): the one-pixel diagonal moves of Azulay and Weiss."""
    return np.repeat(np.arange(count)[:, None], 2, axis=1)


def _offset(offset: Any, card: Family, family: str) -> jax.Array:
    offset = jnp.asarray(offset)
    if card.whole and not jnp.issubdtype(offset.dtype, jnp.integer):
        raise TypeError(f"offset: {family} moves whole pixels, got {offset.dtype}")
    if not card.whole:
        offset = offset.astype(jnp.float32)
    if card.axes and offset.ndim == 0:
        return jnp.stack([offset, offset])
    if card.axes and offset.shape[-1] != 2:
        raise ValueError(f"offset: expected (rows, columns) last, got shape {offset.shape}")
    return offset


def _take(x: jax.Array, place: jax.Array, axis: int, boundary: str) -> jax.Array:
    # Index vectors instead of a padded copy: any offset, no bound to choose, and as fast.
    size = x.shape[axis]
    taken = pads.lines(x, _inside(place, size, boundary), axis)
    if boundary != "zeros":
        return taken
    shape = [1] * x.ndim
    shape[axis] = place.shape[0]
    return jnp.where(((place >= 0) & (place < size)).reshape(shape), taken, 0)


def _inside(place: jax.Array, size: int, boundary: str) -> jax.Array:
    if boundary == "circular":
        return place % size
    if boundary == "reflect" and size > 1:
        period = 2 * size - 2
        folded = place % period
        return jnp.minimum(folded, period - folded)
    return jnp.clip(place, 0, size - 1)


def bilinear(image: jax.Array, rows: jax.Array, columns: jax.Array, *, boundary: str) -> jax.Array:
    """Return one image (H, W, C) at real places rows, columns (H', W'): (H', W', C)."""
    height, width, _ = image.shape
    total = jnp.zeros(image.shape, jnp.promote_types(image.dtype, jnp.float32))
    for i in (0, 1):
        for j in (0, 1):
            row, column = jnp.floor(rows) + i, jnp.floor(columns) + j
            weight = (1 - jnp.abs(rows - row)) * (1 - jnp.abs(columns - column))
            if boundary == "zeros":
                weight *= (row >= 0) & (row < height) & (column >= 0) & (column < width)
            row = _inside(row.astype(jnp.int32), height, boundary)
            column = _inside(column.astype(jnp.int32), width, boundary)
            total += weight[..., None] * image[row, column]
    return total.astype(image.dtype)

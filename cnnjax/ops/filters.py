"""Named convolution kernels, and how image editors apply one: x (..., H, W, C) -> same.

    y = apply(x, FILTERS["emboss"], border="wrap")       # x in [0, 1]
    y = apply(x, normalised(((0, 1, 0), (1, -4, 1), (0, 1, 0))))

Every channel is correlated with the matrix (not flipped), divided by the divisor and moved by the
offset, where white is 1. Borders: extend repeats the edge, wrap continues on the opposite side,
crop keeps only pixels whose window lies within the image. The rules, and the five matrices blur,
sharpen, edge_enhance, edge_detect and emboss, are those of the page on the convolution matrix in
the GIMP manual (docs.gimp.org, "Convolution Matrix").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import spec
from cnnjax.ops import lowpass
from cnnjax.ops import padding as pads
from cnnjax.ops.conv import conv

Matrix = tuple[tuple[float, ...], ...]

BORDERS: Mapping[str, str] = {"extend": "EDGE", "wrap": "CIRCULAR", "crop": "VALID"}


@dataclass(frozen=True)
class Filter:
    """A matrix (rows of numbers), what its sums are divided by, and what is then added."""

    matrix: Matrix
    divisor: float = 1.0
    offset: float = 0.0
    summary: str = ""

    def __post_init__(self) -> None:
        rows = np.asarray(_rows(self.matrix), float)
        if not np.isfinite(rows).all():
            raise ValueError(f"matrix: expected finite numbers, got {self.matrix!r}")
        for name in ("divisor", "offset"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name}: expected a number, got {value!r}")
            if not math.isfinite(value) or (name == "divisor" and value == 0):
                allowed = "a number other than 0" if name == "divisor" else "a finite number"
                raise ValueError(f"{name}: expected {allowed}, got {value!r}")


def apply(x: jax.Array, filter: Filter, *, border: str = "extend") -> jax.Array:
    """Return the filtered x (..., H, W, C), smaller by the window less one where `border` crops.

    Values are not clipped. Raises ValueError for an unknown border, TypeError for integer images.
    """
    if not isinstance(filter, Filter):
        raise TypeError(f"filter: expected a Filter such as FILTERS['blur'], got {filter!r}")
    spec.find(BORDERS, border, "border")
    x = pads.feature_map(x)
    matrix = jnp.asarray(filter.matrix, x.dtype)[:, :, None, None]
    kernel = jnp.tile(matrix, (1, 1, 1, x.shape[-1]))
    y = conv(x, kernel, padding=BORDERS[border], groups=x.shape[-1])
    return y / jnp.asarray(filter.divisor, x.dtype) + jnp.asarray(filter.offset, x.dtype)


def normalised(matrix: Sequence[Sequence[float]], *, summary: str = "") -> Filter:
    """Return the filter with the automatic divisor and offset: the sum of the matrix and 0.

    A sum of 0 has divisor 1 and offset 1/2 (grey); a negative one its absolute value and offset 1.
    """
    rows = _rows(matrix)
    total = math.fsum(number for row in rows for number in row)
    if total == 0:
        return Filter(rows, 1.0, 0.5, summary)
    return Filter(rows, abs(total), 0.0 if total > 0 else 1.0, summary)


def box(size: int = 3) -> Filter:
    """Return the mean of size x size pixels."""
    _check_size(size)
    return normalised(((1.0,) * size,) * size, summary=f"mean of {size}x{size} pixels")


def binomial_filter(size: int = 3) -> Filter:
    """Return the outer product of a row of Pascal's triangle with itself, of sum 1."""
    _check_size(size)
    taps = [float(math.comb(size - 1, k)) for k in range(size)]
    return normalised(_outer(taps), summary="binomial blur: whole numbers near a Gaussian")


def gaussian(size: int = 5, sigma: float = 1.0) -> Filter:
    """Return the Gaussian of `sigma` pixels sampled at size x size places, of sum 1."""
    _check_size(size)
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)):
        raise TypeError(f"sigma: expected a number > 0, got {sigma!r}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma: expected a number > 0, got {sigma!r}")
    taps = lowpass.gaussian(size, sigma)
    return normalised(_outer(taps), summary=f"Gaussian blur, sigma {sigma:g}")


def binomial(size: int) -> list[float]:
    """Return row `size - 1` of Pascal's triangle over its sum: [1, 2, 1] / 4 for size 3."""
    return [math.comb(size - 1, k) / 2.0 ** (size - 1) for k in range(size)]


def _outer(taps: Sequence[float]) -> Matrix:
    return tuple(tuple(a * b for b in taps) for a in taps)


def _check_size(size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"size: expected an int >= 1, got {size!r}")
    if size < 1:
        raise ValueError(f"size: expected an int >= 1, got {size!r}")


def _rows(matrix: Any) -> Matrix:
    try:
        rows = tuple(tuple(float(number) for number in row) for row in matrix)
    except (TypeError, ValueError):
        raise TypeError(f"matrix: expected rows of numbers, got {matrix!r}") from None
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"matrix: expected rows of equal length >= 1, got {matrix!r}")
    return rows


FILTERS: Mapping[str, Filter] = {
    "blur": Filter(((1, 1, 1), (1, 1, 1), (1, 1, 1)), 9, summary="mean of the neighbours"),
    "sharpen": Filter(((0, -1, 0), (-1, 5, -1), (0, -1, 0)), summary="image less its Laplacian"),
    "edge_enhance": Filter(((0, 0, 0), (-1, 1, 0), (0, 0, 0)), summary="step from the left"),
    "edge_detect": Filter(((0, 1, 0), (1, -4, 1), (0, 1, 0)), summary="Laplacian, clipped at 0"),
    "emboss": Filter(((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), summary="relief lit from one corner"),
    "box": box(5),
    "binomial": binomial_filter(5),
    "gaussian": gaussian(5, 1.0),
    "sobel_x": Filter(((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), 8, 0.5, "slope to the right, 0 grey"),
    "sobel_y": Filter(((-1, -2, -1), (0, 0, 0), (1, 2, 1)), 8, 0.5, "slope downwards, 0 grey"),
    "laplacian": normalised(((0, 1, 0), (1, -4, 1), (0, 1, 0)), summary="Laplacian, 0 grey"),
}

"""Low-pass and resample in the Fourier domain, x (..., H, W, C) -> (..., H/sh, W/sw, C).

    y = spectral.spectral(x, stride=(2, 2))

Maps are circular. Cropping a spectrum is a small matrix for each axis (real, constant), so these
are matrix products: differentiable to any order, and exact about which frequencies they keep.
"""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops import padding as pads
from cnnjax.ops import windows
from cnnjax.ops.allowed import OneOf
from cnnjax.ops.padding import Pair

Array = jax.Array | np.ndarray
Circular = Annotated[str, OneOf("CIRCULAR")]


def spectral(x: jax.Array, *, stride: Pair, padding: Circular = "CIRCULAR") -> jax.Array:
    """Crop the spectrum to ceil(H/sh) x ceil(W/sw) (Rippel et al. 2015), constants kept.

    The new Nyquist bin is removed: half of it would not move with the map.
    """
    del padding
    return _spectral(x, _keeps(x, stride), _keeps(x, stride))


def dense_spectral(x: jax.Array, *, stride: Pair, padding: Circular = "CIRCULAR") -> jax.Array:
    """The band-limited map that `spectral` samples."""
    del padding
    return _spectral(x, _keeps(x, stride), pads.spatial_size(x))


def flc(x: jax.Array, *, stride: Pair, padding: Circular = "CIRCULAR") -> jax.Array:
    """Crop the shifted spectrum as published, one Nyquist bin of two kept (Grabinski et al. 2022).

    The imaginary part which that leaves is dropped. ValueError where the stride does not divide.
    """
    del padding
    return _flc(x, stride, pads.divided_size(x, stride))


def dense_flc(x: jax.Array, *, stride: Pair, padding: Circular = "CIRCULAR") -> jax.Array:
    """The map that `flc` samples."""
    del padding
    pads.divided_size(x, stride)
    return _flc(x, stride, pads.spatial_size(x))


def resample(
    x: jax.Array,
    row_gains: jax.Array | np.ndarray,
    column_gains: jax.Array | np.ndarray,
    size: Pair,
) -> jax.Array:
    """Weigh frequencies |k| = 0, 1, ... of each axis by its gains and sample at `size` places.

    row_gains (H//2 + 1,), column_gains (W//2 + 1,); x (..., H, W, C) -> (..., *size, C).
    """
    height, width = pads.spatial_size(x)
    return _apply(x, _matrix(height, size[0], row_gains), _matrix(width, size[1], column_gains))


def _spectral(x: jax.Array, keep: Pair, size: Pair) -> jax.Array:
    height, width = pads.spatial_size(x)
    if keep == (height, width):
        return x
    return resample(x, _gains(keep[0], height), _gains(keep[1], width), size)


def _keeps(x: jax.Array, stride: Pair) -> Pair:
    height, width = pads.spatial_size(x)
    return -(-height // stride[0]), -(-width // stride[1])


def _gains(keep: int, size: int) -> np.ndarray:
    """1 for the frequencies below the Nyquist frequency of `keep` samples, else 0."""
    frequencies = np.arange(size // 2 + 1)
    return np.where((keep == size) | (2 * frequencies < keep), 1.0, 0.0)


def _matrix(size: int, samples: int, gains: Array) -> Array:
    """Return (samples, size): analyse into cosines and sines, weigh, sample the sum."""
    k = np.arange(size // 2 + 1)
    weights = np.where((k > 0) & (2 * k < size), 2.0, 1.0) / size
    angles = 2 * np.pi * k[:, None] / size
    analysis = _waves(angles * np.arange(size)) * np.tile(weights, 2)[:, None]
    synthesis = _waves(angles * (np.arange(samples) * (size / samples))).T
    if isinstance(gains, np.ndarray):
        return (synthesis * np.tile(gains, 2)) @ analysis
    weighed = jnp.asarray(synthesis, gains.dtype) * jnp.tile(gains, 2)[None, :]
    return jnp.matmul(weighed, jnp.asarray(analysis, gains.dtype), precision=lax.Precision.HIGHEST)


def _waves(angles: np.ndarray) -> np.ndarray:
    return np.concatenate([np.cos(angles), np.sin(angles)])


def _flc(x: jax.Array, stride: Pair, size: Pair) -> jax.Array:
    (rows, columns), (height, width) = _keeps(x, stride), pads.spatial_size(x)
    real_rows, imaginary_rows = _one_sided(height, rows, size[0])
    real_columns, imaginary_columns = _one_sided(width, columns, size[1])
    return _apply(x, real_rows, real_columns) - _apply(x, imaginary_rows, imaginary_columns)


def _one_sided(size: int, keep: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    k = (np.arange(keep) - keep // 2)[:, None, None]
    places = np.arange(samples)[None, :, None] * (size / samples)
    waves = np.exp(2j * np.pi * k * (places - np.arange(size)[None, None, :]) / size) / size
    total = waves.sum(axis=0)
    return total.real, total.imag


def _apply(x: jax.Array, rows: Array, columns: Array) -> jax.Array:
    values = windows.wide(x)
    left, right = jnp.asarray(rows, values.dtype), jnp.asarray(columns, values.dtype)
    highest = lax.Precision.HIGHEST
    y = jnp.einsum("ih,...hwc->...iwc", left, values, precision=highest)
    return jnp.einsum("jw,...iwc->...ijc", right, y, precision=highest).astype(x.dtype)

"""Places become channels, x (..., H, W, C) -> (..., H/sh, W/sw, C'), without loss.

y = rearrange.space_to_depth(x, stride=(2, 2))     # C' = 4 C, place first: (i, j, c)
y = rearrange.haar(x, stride=(2, 2), bands="all")
"""

from __future__ import annotations

import itertools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.ops import local
from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import OneOf
from cnnjax.ops.padding import Pair

Bands = Annotated[str, OneOf("low", "all")]


def space_to_depth(x: jax.Array, *, stride: Pair) -> jax.Array:
    """Stack the places of each block as channels: channel (i sw + j) C + c is x[i::sh, j::sw, c].

    ValueError where the stride does not divide the map.
    """
    pads.divided_size(x, stride)
    return local.decimate(dense_space_to_depth(x, stride=stride), stride=stride)


def dense_space_to_depth(x: jax.Array, *, stride: Pair) -> jax.Array:
    """`space_to_depth` of the blocks that start at every place of the circular map."""
    return jnp.concatenate(_block(x, stride), axis=-1)


def haar(x: jax.Array, *, stride: Pair, bands: Bands = "low") -> jax.Array:
    """Orthonormal Haar transform of each block: the low band (C channels) or all (sh sw C).

    The low band is the block's sum / sqrt(sh sw), twice the mean at stride 2. ValueError where the
    stride does not divide the map or is no power of two.
    """
    pads.divided_size(x, stride)
    return local.decimate(dense_haar(x, stride=stride, bands=bands), stride=stride)


def dense_haar(x: jax.Array, *, stride: Pair, bands: Bands = "low") -> jax.Array:
    """`haar` of the blocks that start at every place of the circular map."""
    for s in stride:
        if s & (s - 1):
            raise ValueError(f"stride: pool 'haar' got {stride}; allowed: powers of two")
    block = _block(x, stride)
    matrix = np.kron(haar_matrix(stride[0]), haar_matrix(stride[1]))
    rows = matrix[:1] if bands == "low" else matrix
    return jnp.concatenate([_weigh(row, block) for row in rows], axis=-1)


def haar_matrix(size: int) -> np.ndarray:
    """Return the orthonormal Haar matrix of a power of two, the mean's row first."""
    if size == 1:
        return np.ones((1, 1))
    half = haar_matrix(size // 2)
    low = np.kron(half, [1.0, 1.0])
    high = np.kron(np.eye(size // 2), [1.0, -1.0])
    return np.concatenate([low, high]) / np.sqrt(2.0)


def _weigh(weights: np.ndarray, block: list[jax.Array]) -> jax.Array:
    # One product at the end keeps the low band exact where sqrt(sh sw) is a power of two.
    size = float(np.abs(weights).max())
    terms = [round(float(w) / size, 12) * part for w, part in zip(weights, block, strict=True) if w]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total * round(size, 15)


def _block(x: jax.Array, stride: Pair) -> list[jax.Array]:
    steps = itertools.product(range(stride[0]), range(stride[1]))
    return [jnp.roll(x, (-i, -j), axis=(-3, -2)) for i, j in steps]

"""The parts of a spatial transformer (Jaderberg et al. 2015): poses -> grid -> sampled image.

    grid = affine_grid(theta, size=(28, 28))        # theta (N, 2, 3) -> (N, 28, 28, 2)
    y = bilinear(x, grid)                           # x (N, H, W, C) -> (N, 28, 28, C)

A place is (row, column), -1 at the first pixel's centre and 1 at the last one's; theta acts on
(row, column, 1) of the output and says where in the input to look. Outside the image is 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops.padding import Pair


def affine_grid(theta: jax.Array, *, size: Pair) -> jax.Array:
    """Return the places (N, H', W', 2) in the input that the outputs of `size` look at.

    theta (N, 2, 3): the affine map of eq. 1.
    """
    rows, columns = (jnp.linspace(-1.0, 1.0, n, dtype=theta.dtype) for n in size)
    places = jnp.stack([*jnp.meshgrid(rows, columns, indexing="ij"), jnp.ones(size, theta.dtype)])
    return jnp.einsum("nij,jhw->nhwi", theta, places, precision=jax.lax.Precision.HIGHEST)


def translation(offset: jax.Array) -> jax.Array:
    """Return the affine maps (N, 2, 3) that move the view by offset (N, 2) and do nothing else."""
    identity = jnp.broadcast_to(jnp.eye(2, dtype=offset.dtype), (*offset.shape[:-1], 2, 2))
    return jnp.concatenate([identity, offset[..., None]], axis=-1)


def bilinear(x: jax.Array, grid: jax.Array) -> jax.Array:
    """Sample x (N, H, W, C) at the places (N, H', W', 2): (N, H', W', C), eq. 5.

    Differentiable in both; exact at pixel centres.
    """
    size = jnp.asarray(x.shape[-3:-1], grid.dtype).reshape(1, 1, 1, 2)
    places = (grid + 1.0) * (size - 1.0) / 2.0
    corner = jnp.floor(places)
    along = places - corner
    first = corner.astype(jnp.int32)
    total = jnp.zeros((*grid.shape[:-1], x.shape[-1]), jnp.result_type(x, grid))
    for i in (0, 1):
        for j in (0, 1):
            rows, columns = first[..., 0] + i, first[..., 1] + j
            share = _share(along[..., 0], i) * _share(along[..., 1], j)
            total = total + share[..., None] * _pixels(x, rows, columns)
    return total.astype(x.dtype)


def _share(along: jax.Array, far: int) -> jax.Array:
    return along if far else 1.0 - along


def _pixels(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Return x at integer places, 0 outside."""
    height, width = x.shape[-3:-1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    found = jax.vmap(lambda image, i, j: image[i, j])(x, rows, columns)
    return jnp.where(inside[..., None], found, 0)

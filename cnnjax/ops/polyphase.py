"""Sampling that follows the content: one of the stride's polyphase components, x -> (y, phase).

    y, phase = polyphase.aps(x, stride=(2, 2))
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnnjax.ops.padding import Pair


def components(x: jax.Array, stride: Pair) -> jax.Array:
    """Stack the sh*sw components x[i::sh, j::sw], row by row: (..., sh*sw, H/sh, W/sw, C)."""
    *lead, height, width, channels = x.shape
    sh, sw = stride
    x = x.reshape(*lead, height // sh, sh, width // sw, sw, channels)
    x = jnp.moveaxis(x, (-4, -2), (-5, -4))
    return x.reshape(*lead, sh * sw, height // sh, width // sw, channels)


def aps(x: jax.Array, *, stride: Pair) -> tuple[jax.Array, jax.Array]:
    """Keep the component of largest l2 norm (Adaptive Polyphase Sampling, Chaman 2021)."""
    parts = components(x, stride)
    norms = jnp.sum(jnp.square(parts.astype(jnp.float32)), axis=(-3, -2, -1))
    phase = jnp.argmax(norms, axis=-1)
    index = phase[..., None, None, None, None]
    return jnp.take_along_axis(parts, index, axis=-4).squeeze(-4), phase

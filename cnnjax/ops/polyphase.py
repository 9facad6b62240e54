"""Sampling that follows the content: one of the stride's polyphase components, x -> (y, phase).

    y, phase = polyphase.aps(x, stride=(2, 2), p=2)     # y (..., H/2, W/2, C), phase (...,) int32
    x = polyphase.unpool(y, phase, stride=(2, 2))       # y back in its place, zeros elsewhere

Component i * sw + j of stride (sh, sw) is x[i::sh, j::sw]. Which one is kept depends on x alone, up
to a circular shift of x: y(roll(x, d)) is y(x) rolled, for every d, bit for bit. Two things make
that true in floating point, where a sum depends on its order and norms may tie:

- norms are sums of integers (`norms`), which do not depend on the order of the values;
- among components of equal norm the one with the largest *fingerprint* wins (`fingerprints`), a
  number which all circular shifts of a component share.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import OneOf
from cnnjax.ops.padding import Pair

Norm = Annotated[float, OneOf(1, 2, float("inf"))]


class Choice(NamedTuple):
    """The component to keep and how many others had the same norm, both (...,) int32."""

    phase: jax.Array
    ties: jax.Array


def aps(
    x: jax.Array, *, stride: Pair, p: Norm = 2, phase: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Keep the component of largest l_p norm (Adaptive Polyphase Sampling, Chaman 2021).

    x (..., H, W, C) -> (..., H/sh, W/sw, C) and the phase (...,); a `phase` given is used as it is,
    so that a residual block's shortcut can follow its branch. The norm is over H, W and C jointly:
    one phase per channel would break equivariance. ValueError where the stride does not divide.
    """
    if phase is None:
        phase = choose(x, stride=stride, p=p).phase
    return sample(x, phase, stride=stride), phase


def choose(x: jax.Array, *, stride: Pair, p: Norm = 2) -> Choice:
    """Return the phase of the largest norm; ties are decided alike for all circular shifts of x."""
    x = lax.stop_gradient(_wide(x))
    best = strongest(norms(x, stride=stride, p=p))
    ties = jnp.sum(best, axis=-1, dtype=jnp.int32) - 1
    first = jnp.argmax(best, axis=-1).astype(jnp.int32)
    # Reading the whole map again is paid for only where some image of the batch has a tie.
    phase = lax.cond(
        jnp.any(ties > 0),
        lambda: jnp.argmax(_largest(fingerprints(x, stride), best), axis=-1).astype(jnp.int32),
        lambda: first,
    )
    return Choice(phase, ties)


def sample(x: jax.Array, phase: jax.Array, *, stride: Pair) -> jax.Array:
    """Return the component numbered `phase` (...,) of every map: (..., H/sh, W/sw, C)."""
    grid = _grid(x, stride)
    mask = _mask(_checked(phase, x.shape[:-3], stride), stride)
    return jnp.sum(jnp.where(mask, grid, 0), axis=(-4, -2), dtype=x.dtype)


def unpool(y: jax.Array, phase: jax.Array, *, stride: Pair, size: Pair | None = None) -> jax.Array:
    """Put y (..., H', W', C) back at its phase in a map of zeros: the transpose of `sample`.

    `size` is the map's (H, W), which can only be (H' sh, W' sw).
    """
    height, width = pads.spatial_size(y)
    whole = (height * stride[0], width * stride[1])
    if size is not None and tuple(size) != whole:
        raise ValueError(f"size: expected {whole}, y's size times the stride, got {size}")
    mask = _mask(_checked(phase, y.shape[:-3], stride), stride)
    spread = jnp.where(mask, y[..., :, None, :, None, :], jnp.zeros((), y.dtype))
    return spread.reshape(*y.shape[:-3], *whole, y.shape[-1])


def components(x: jax.Array, stride: Pair) -> jax.Array:
    """Stack the sh*sw components, row by row: (..., sh*sw, H/sh, W/sw, C)."""
    grid = jnp.moveaxis(_grid(x, stride), (-4, -2), (-5, -4))
    return grid.reshape(*x.shape[:-3], stride[0] * stride[1], *grid.shape[-3:])


def norms(x: jax.Array, *, stride: Pair, p: Norm = 2) -> list[jax.Array]:
    """Return every component's l_p norm to the power p as digits (..., sh*sw), the highest first.

    The digits are int32 (int64 for f64): |x|^p on a power-of-two scale that all components of a map
    share, cut to 30 bits or more and added as integers. l_inf has one floating digit, the maximum.
    """
    magnitude = jnp.abs(_grid(_wide(x), stride))
    if p == float("inf"):
        return [_phases(jnp.max(magnitude, axis=(-5, -3, -1), initial=0.0))]
    largest = jnp.max(magnitude, axis=(-5, -4, -3, -2, -1), keepdims=True, initial=0.0)
    unit = magnitude * jnp.ldexp(jnp.ones_like(largest), -jnp.frexp(largest)[1])
    return [_phases(digit) for digit in _add(unit if p == 1 else unit * unit, (-5, -3, -1))]


def strongest(digits: list[jax.Array]) -> jax.Array:
    """Return where a component's norm, compared digit by digit, is the largest: (..., sh*sw)."""
    best = jnp.ones(digits[0].shape, bool)
    for digit in digits:
        best = _largest(digit, best)
    return best


def fingerprints(x: jax.Array, stride: Pair) -> jax.Array:
    """Return a number (..., sh*sw) uint32 that all circular shifts of a component share.

    Each pixel's channels are hashed; then each place's hash is joined with that of the place 1, 2,
    4, ... rows and columns on, until it has seen its whole component from where it stands. The sum
    over all places does not depend on where the component starts. Components that are no shifts of
    each other share a number with probability 2^-32.
    """
    grid = _grid(_wide(x), stride) + 0.0  # -0 and 0 are one number
    bits = lax.bitcast_convert_type(grid, jnp.uint32).reshape(*grid.shape[:-1], -1)
    salt = _scramble(jnp.arange(1, bits.shape[-1] + 1, dtype=jnp.uint32))
    salt = salt.reshape((1,) * (bits.ndim - 1) + (-1,))
    view = _scramble(jnp.sum(_scramble(bits ^ salt), axis=-1, dtype=jnp.uint32))
    for axis in (-4, -2):
        step = 1
        while step < view.shape[axis]:
            view = _scramble(view * jnp.uint32(3) + jnp.roll(view, -step, axis))
            step *= 2
    return _phases(jnp.sum(view, axis=(-4, -2), dtype=jnp.uint32))


def _add(values: jax.Array, axes: tuple[int, ...]) -> list[jax.Array]:
    """Sum values in [0, 1] exactly up to a cut: integer digits, the highest first."""
    count = 1
    for axis in axes:
        count *= values.shape[axis]
    integer, room = (jnp.int64, 62) if values.dtype == jnp.float64 else (jnp.int32, 30)
    bits = max(room - max(count - 1, 0).bit_length(), 1)
    base = 2.0**bits
    digits = []
    for _ in range(-(-room // bits)):
        values = values * base
        digit = values.astype(integer)
        values = values - digit.astype(values.dtype)
        digits.append(jnp.sum(digit, axis=axes, dtype=integer))
    for k in reversed(range(1, len(digits))):
        digits[k - 1] += digits[k] >> bits
        digits[k] &= (1 << bits) - 1
    return digits


def _largest(values: jax.Array, among: jax.Array) -> jax.Array:
    lowest = -jnp.inf if jnp.issubdtype(values.dtype, jnp.floating) else jnp.iinfo(values.dtype).min
    values = jnp.where(among, values, lowest)
    return among & (values == jnp.max(values, axis=-1, keepdims=True))


def _grid(x: jax.Array, stride: Pair) -> jax.Array:
    """View x as (..., H/sh, sh, W/sw, sw, C)."""
    height, width = pads.divided_size(x, stride)
    return x.reshape(*x.shape[:-3], height, stride[0], width, stride[1], x.shape[-1])


def _phases(values: jax.Array) -> jax.Array:
    return values.reshape(*values.shape[:-2], values.shape[-2] * values.shape[-1])


def _mask(phase: jax.Array, stride: Pair) -> jax.Array:
    one_hot = jax.nn.one_hot(phase, stride[0] * stride[1], dtype=bool)
    return one_hot.reshape(*phase.shape, 1, stride[0], 1, stride[1], 1)


def _checked(phase: Any, lead: tuple[int, ...], stride: Pair) -> jax.Array:
    phase = jnp.asarray(phase)
    if not jnp.issubdtype(phase.dtype, jnp.integer):
        raise TypeError(f"phase: expected integers, got {phase.dtype}")
    if phase.shape != lead:
        raise ValueError(f"phase: expected shape {lead}, one number a map, got {phase.shape}")
    if not isinstance(phase, jax.core.Tracer) and phase.size:
        low, high = int(phase.min()), int(phase.max())
        if low < 0 or high >= stride[0] * stride[1]:
            raise ValueError(
                f"phase: expected 0 to {stride[0] * stride[1] - 1} at stride {stride}, "
                f"got {low} to {high}"
            )
    return phase


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _scramble(bits: jax.Array) -> jax.Array:
    """Mix 32 bits so that each output bit depends on each input bit (MurmurHash3's finalizer)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)

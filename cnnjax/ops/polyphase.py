"""Sampling that follows the content: one of the stride's polyphase components, x -> (y, choice).

    y, (phase, ties) = polyphase.aps(x, stride=(2, 2), p=2)    # y (..., H/2, W/2, C)
    x = polyphase.unpool(y, phase, stride=(2, 2))       # y back in its place, zeros elsewhere

Component i * sw + j of stride (sh, sw) is x[i::sh, j::sw]. Which one is kept depends on x alone, up
to a circular shift of x: y(roll(x, d)) is y(x) rolled, for every d, bit for bit. Two things make
that true in floating point, where a sum depends on its order and norms may tie:

- norms are sums of integers (`norms`), which do not depend on the order of the values;
- among components of equal norm the one with the largest *fingerprint* wins (`fingerprints`), a
  number which all circular shifts of a component share.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.ops import antialias, local, windows
from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import OneOf
from cnnjax.ops.antialias import FilterSize
from cnnjax.ops.fusion import unfused
from cnnjax.ops.multilinear import multilinear
from cnnjax.ops.padding import Pair

Circular = Annotated[str, OneOf("CIRCULAR")]
Norm = Annotated[float, OneOf(1, 2, float("inf"))]
Judge = Annotated[str, OneOf("after", "before")]


class Choice(NamedTuple):
    """The component to keep and how many others had the same norm, both (...,) int32."""

    phase: jax.Array
    ties: jax.Array


def aps(
    x: jax.Array,
    *,
    stride: Pair,
    padding: Circular = "CIRCULAR",
    p: Norm = 2,
    phase: jax.Array | None = None,
) -> tuple[jax.Array, Choice]:
    """Keep the component of largest l_p norm (Adaptive Polyphase Sampling, Chaman 2021).

    x (..., H, W, C) -> (..., H/sh, W/sw, C) and the choice. A `phase` (...,) given is used as it
    is, so that a residual block's shortcut can follow its branch. The norm is over H, W and C
    jointly: one phase per channel would break equivariance. ValueError where the stride does not
    divide.
    """
    del padding
    return select(x, x, stride=stride, p=p, phase=phase)


def aps_blur(
    x: jax.Array,
    *,
    stride: Pair,
    padding: Circular = "CIRCULAR",
    filter_size: FilterSize = 3,
    p: Norm = 2,
    judge: Judge = "after",
    phase: jax.Array | None = None,
) -> tuple[jax.Array, Choice]:
    """Binomial blur, then `aps`; norms of the map `after` the blur or `before` it."""
    blurred = unfused(antialias.blur(x, stride=(1, 1), padding=padding, filter_size=filter_size))
    judged = blurred if judge == "after" else x
    return select(blurred, judged, stride=stride, p=p, phase=phase)


def max_aps(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Circular = "CIRCULAR",
    p: Norm = 2,
    phase: jax.Array | None = None,
) -> tuple[jax.Array, Choice]:
    """Dense maximum, then `aps`."""
    peaks = unfused(local.maximum(x, window=window, stride=(1, 1), padding=padding))
    return select(peaks, peaks, stride=stride, p=p, phase=phase)


def select(
    x: jax.Array, judged: jax.Array, *, stride: Pair, p: Norm, phase: jax.Array | None
) -> tuple[jax.Array, Choice]:
    """Keep the component of x at `phase`, by default where `judged` has its largest norm."""
    if phase is None:
        choice = choose(judged, stride=stride, p=p)
    else:
        choice = Choice(jnp.asarray(phase), jnp.zeros(x.shape[:-3], jnp.int32))
    return sample(x, choice.phase, stride=stride), choice


def choose(x: jax.Array, *, stride: Pair, p: Norm = 2) -> Choice:
    """Return the phase of the largest norm; ties are decided alike for all circular shifts of x."""
    if stride == (1, 1):
        return Choice(*[jnp.zeros(x.shape[:-3], jnp.int32)] * 2)
    x = lax.stop_gradient(windows.wide(x))
    return _decide(norms(x, stride=stride, p=p), x, stride)


def choose_by(scores: jax.Array, x: jax.Array, *, stride: Pair) -> Choice:
    """Return the phase of the largest sum of scores (..., sh*sw, h, w, D); ties as in `choose`."""
    scores, x = (lax.stop_gradient(windows.wide(a)) for a in (scores, x))
    return _decide(_exact_sum(scores, (-3, -2, -1), (-3, -4, -2, -1)), x, stride)


def sample(x: jax.Array, phase: jax.Array, *, stride: Pair) -> jax.Array:
    """Return the component numbered `phase` (...,) of every map: (..., H/sh, W/sw, C).

    A floating `phase` (..., sh*sw) is a weight for each component instead.
    """
    pads.divided_size(x, stride)
    lead = x.shape[:-3]
    if jnp.issubdtype(jnp.result_type(phase), jnp.floating):
        weights = jnp.asarray(phase, windows.wide(x).dtype)
        if weights.shape != (*lead, stride[0] * stride[1]):
            raise ValueError(
                f"phase: expected {lead} integers or {(*lead, stride[0] * stride[1])} weights, "
                f"got shape {weights.shape}"
            )
        weights = weights.reshape(*lead, 1, stride[0], 1, stride[1], 1)
        return jnp.sum(weights * _grid(x, stride), axis=(-4, -2)).astype(x.dtype)
    return _kept(jnp.asarray(x), _checked(phase, lead, stride), stride=stride)


def unpool(y: jax.Array, phase: jax.Array, *, stride: Pair, size: Pair | None = None) -> jax.Array:
    """Put y (..., H', W', C) back at its phase in a map of zeros: the transpose of `sample`.

    `size` is the map's (H, W), which can only be (H' sh, W' sw).
    """
    height, width = pads.spatial_size(y)
    whole = (height * stride[0], width * stride[1])
    if size is not None and tuple(size) != whole:
        raise ValueError(f"size: expected {whole}, y's size times the stride, got {size}")
    return _spread(y, _checked(phase, y.shape[:-3], stride), stride)


def components(x: jax.Array, stride: Pair) -> jax.Array:
    """Stack the sh*sw components, row by row: (..., sh*sw, H/sh, W/sw, C)."""
    grid = jnp.moveaxis(_grid(x, stride), (-4, -2), (-5, -4))
    return grid.reshape(*x.shape[:-3], stride[0] * stride[1], *grid.shape[-3:])


def norms(x: jax.Array, *, stride: Pair, p: Norm = 2) -> list[jax.Array]:
    """Return every component's l_p norm to the power p as digits (..., sh*sw), the highest first.

    The digits are int32 (int64 for f64): |x|^p on a power-of-two scale that all components of a map
    share, cut below 2^-30 H/sh of it (2^-62 H/sh for f64) and added as integers. l_inf has one
    floating digit, the maximum.
    """
    grid = _grid(windows.wide(x), stride)
    if p == float("inf"):
        return [_phases(_maximum(grid, (-5, -3, -1)))]
    digits = _exact_sum(jnp.abs(grid), (-5, -3, -1), (-5, -4, -3, -2, -1), squared=p == 2)
    return [_phases(digit) for digit in digits]


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
    grid = _grid(windows.wide(x), stride) + 0.0  # -0 and 0 are one number
    bits = lax.bitcast_convert_type(grid, jnp.uint32)
    bits = bits.reshape(*grid.shape[:-1], x.shape[-1] * (2 if bits.ndim > grid.ndim else 1))
    salt = _scramble(jnp.arange(1, bits.shape[-1] + 1, dtype=jnp.uint32))
    salt = salt.reshape((1,) * (bits.ndim - 1) + (-1,))
    view = _scramble(_channel_sum(_scramble(bits ^ salt)))
    for axis in (-4, -2):
        step = 1
        while step < view.shape[axis]:
            view = _scramble(view * jnp.uint32(3) + jnp.roll(view, -step, axis))
            step *= 2
    return _phases(jnp.sum(view, axis=(-4, -2), dtype=jnp.uint32))


def _keep(x: jax.Array, phase: jax.Array, *, stride: Pair) -> jax.Array:
    # A chain of selects reads the map once; a gather, or a masked sum, is several times slower.
    y = x[..., :: stride[0], :: stride[1], :]
    for k in range(1, stride[0] * stride[1]):
        part = x[..., k // stride[1] :: stride[0], k % stride[1] :: stride[1], :]
        y = jnp.where((phase == k)[..., None, None, None], part, y)
    return y


def _spread(y: jax.Array, phase: jax.Array, stride: Pair) -> jax.Array:
    height, width = pads.spatial_size(y)
    spread = jnp.where(_mask(phase, stride), y[..., :, None, :, None, :], jnp.zeros((), y.dtype))
    return spread.reshape(*y.shape[:-3], height * stride[0], width * stride[1], y.shape[-1])


_kept = multilinear(
    "polyphase_sample", _keep, {0: lambda g, x, phase, *, stride: _spread(g, phase, stride)}
)


def _decide(digits: list[jax.Array], x: jax.Array, stride: Pair) -> Choice:
    best = strongest(digits)
    ties = jnp.sum(best, axis=-1, dtype=jnp.int32) - 1
    # Reading the whole map again is paid for only where some map of the batch has a tie.
    phase = lax.cond(
        jnp.any(ties > 0),
        lambda: jnp.argmax(_largest(fingerprints(x, stride), best), axis=-1).astype(jnp.int32),
        lambda: jnp.argmax(best, axis=-1).astype(jnp.int32),
    )
    return Choice(phase, ties)


def _exact_sum(
    values: jax.Array, axes: tuple[int, ...], whole: tuple[int, ...], *, squared: bool = False
) -> list[jax.Array]:
    """Sum over `axes` in integers, whatever the order: digits in base 2^bits, the highest first.

    The scale is a power of two above the largest size over the axes `whole`.
    """
    largest = _maximum(values, whole, keepdims=True)
    values = values * jnp.ldexp(jnp.ones_like(largest), -jnp.frexp(largest)[1])
    values = values * values if squared else values
    integer, room = (jnp.int64, 62) if values.dtype == jnp.float64 else (jnp.int32, 30)
    bits = max(room - (values.shape[axes[0]] - 1).bit_length(), 1)
    # Over the first axis whole numbers add up next to each other, which is a fast loop; what is
    # left is small, and is cut into digits with room to add up over the other axes.
    rows = jnp.sum((values * 2.0**bits).astype(integer), axis=axes[0], keepdims=True, dtype=integer)
    count = math.prod(values.shape[axis] for axis in axes[1:])
    base = max(room - max(count - 1, 0).bit_length(), 1)
    digits: list[jax.Array] = []
    for shift in reversed(range(0, room + 1, base)):
        digit = rows >> shift if not digits else (rows >> shift) & ((1 << base) - 1)
        digits.append(jnp.sum(digit, axis=axes, dtype=integer))
    for k in reversed(range(1, len(digits))):
        digits[k - 1] += digits[k] >> base
        digits[k] &= (1 << base) - 1
    return digits


def _maximum(values: jax.Array, axes: tuple[int, ...], *, keepdims: bool = False) -> jax.Array:
    """Return the largest size |value| over `axes`.

    Sizes are in the order of their bits, NaN above all. As integers, and over the first axis alone,
    where vectors meet, they are compared as they are read; floating maxima XLA for CPU hands to a
    library, and stores all sizes for it (maps (128, 32, 32, 64): 9.6 against 2 ms).
    """
    integer = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    bits = lax.bitcast_convert_type(jnp.abs(values), integer)
    rows = jnp.max(bits, axis=axes[0], keepdims=True, initial=0)
    # The barrier keeps the two maxima from becoming one again.
    largest = jnp.max(lax.optimization_barrier(rows), axis=axes, keepdims=keepdims, initial=0)
    return lax.bitcast_convert_type(largest, values.dtype)


def _channel_sum(values: jax.Array) -> jax.Array:
    """Sum integers over the last axis.

    XLA for CPU reduces an innermost axis number by number; halves added to each other are vectors
    (maps (128, 32, 32, 64): 4.0 against 2.1 ms).
    """
    for _ in range(4):  # each doubles the expression
        if values.shape[-1] <= 8:
            break
        if values.shape[-1] % 2:
            values = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, 1)])
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return jnp.sum(values, axis=-1, dtype=values.dtype)


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
    try:
        phase = jnp.asarray(phase)
    except (TypeError, ValueError):
        raise TypeError(f"phase: expected integers of shape {lead}, got {phase!r}") from None
    if not jnp.issubdtype(phase.dtype, jnp.integer):
        raise TypeError(f"phase: expected integers, got {phase.dtype}")
    if phase.shape != lead:
        raise ValueError(f"phase: expected shape {lead}, one number a map, got {phase.shape}")
    if not isinstance(phase, jax.core.Tracer) and phase.size:
        known = np.asarray(phase)
        low, high = int(known.min()), int(known.max())
        if low < 0 or high >= stride[0] * stride[1]:
            raise ValueError(
                f"phase: expected 0 to {stride[0] * stride[1] - 1} at stride {stride}, "
                f"got {low} to {high}"
            )
    return phase


def _scramble(bits: jax.Array) -> jax.Array:
    """Mix 32 bits so that each output bit depends on each input bit (MurmurHash3's finalizer)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)

"""Padding rules: how a map (..., H, W, C) grows before a window of given size slides over it.

The one home of these rules; every pool and every convolution calls `pad` and then samples at
0, s, 2s, ... of what it returns.

    x = padding.pad(x, window=(3, 3), stride=(2, 2), padding="CIRCULAR")
    taps = padding.taps(x, window=(3, 3), stride=(2, 2))     # 9 maps of the output's size

| name | pads (before, after) | outputs |
|---|---|---|
| VALID | none | (n - w) // s + 1 |
| SAME | XLA's rule: the sampling phase depends on the size | ceil(n / s) |
| ZEROS, CIRCULAR, REFLECT, EDGE | (w - 1) // 2, w // 2 whatever the stride | ceil(n / s) |
| FULL | w - 1, w - 1 (F-Conv, Kayhan and van Gemert 2020) | (n + w - 2) // s + 1 |
| ((lo, hi), (lo, hi)) | as given, with the fill value | |
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax import spec
from cnnjax.ops.borders import bordered

Pair = tuple[int, int]
Padding = str | Sequence[Sequence[int]]

PADDINGS = ("VALID", "SAME", "ZEROS", "CIRCULAR", "REFLECT", "EDGE", "FULL")
_MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect", "EDGE": "edge"}


def pair(value: Any, argument: str, *, least: int = 1) -> Pair:
    """Return (rows, columns) from an int or two ints >= `least`; errors name `argument`."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    allowed = f"an int >= {least} or two of them"
    if len(items) != 2:
        raise ValueError(f"{argument}: expected {allowed}, got {value!r}")
    if any(isinstance(item, bool) for item in items):
        raise TypeError(f"{argument}: expected {allowed}, got {value!r}")
    try:
        rows, columns = (operator.index(item) for item in items)
    except TypeError:
        raise TypeError(f"{argument}: expected {allowed}, got {value!r}") from None
    if min(rows, columns) < least:
        raise ValueError(f"{argument}: expected {allowed}, got {value!r}")
    return rows, columns


def amounts(size: Pair, window: Pair, stride: Pair, padding: Padding) -> tuple[Pair, Pair]:
    """Return ((top, bottom), (left, right)): rows and columns to add to a map of `size`."""
    if not isinstance(padding, str):
        return _explicit(padding)
    spec.find(dict.fromkeys(PADDINGS), padding, "padding")
    rows, columns = (_amount(*axis, padding) for axis in zip(size, window, stride, strict=True))
    return rows, columns


def output_size(size: Pair, window: Pair, stride: Pair, padding: Padding) -> Pair:
    """Return (H', W'); ValueError where the window is larger than the padded map."""
    sides = amounts(size, window, stride, padding)
    rows, columns = (
        (n + lo + hi - w) // s + 1
        for n, w, s, (lo, hi) in zip(size, window, stride, sides, strict=True)
    )
    if min(rows, columns) < 1:
        raise ValueError(
            f"window: {window} is larger than the map {size} with padding {padding!r}; "
            "allowed: a window no larger than the padded map"
        )
    return rows, columns


def pad(
    x: jax.Array, *, window: Pair, stride: Pair, padding: Padding, fill: float = 0.0
) -> jax.Array:
    """Pad x (..., H, W, C) so that VALID windows at 0, s, 2s, ... are the outputs.

    `fill` is what SAME, ZEROS, FULL and explicit amounts put outside the map: 0 for sums, -inf for
    a maximum, +inf for a minimum. Rows and columns after the map that no window reaches are left
    out, so a window of 2 at stride 2 needs no copy of an even map.
    """
    size = spatial_size(x)
    outputs = output_size(size, window, stride, padding)
    wanted = amounts(size, window, stride, padding)
    rows, columns = map(_reached, size, window, stride, outputs, wanted)
    sides = rows, columns
    if not any(map(any, sides)):
        return x
    mode = _MODES.get(padding) if isinstance(padding, str) else None
    if mode is None:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*sides, (0, 0)], constant_values=fill)
    return bordered(x, sides=sides, mode=mode)


def taps(x: jax.Array, *, window: Pair, stride: Pair) -> list[jax.Array]:
    """Return the window's kh*kw strided slices (..., H', W', C) of a padded map, row by row."""
    (height, width), (kh, kw), (sh, sw) = spatial_size(x), window, stride
    rows, columns = (height - kh) // sh + 1, (width - kw) // sw + 1
    return [tap(x, (i, j), (rows, columns), stride) for i in range(kh) for j in range(kw)]


def tap(x: jax.Array, start: Pair, count: Pair, stride: Pair) -> jax.Array:
    """Return x[..., i::sh, j::sw, :] cut to `count` rows and columns, as one lax.slice."""
    lead = x.ndim - 3
    stop = [n * s - s + first + 1 for first, n, s in zip(start, count, stride, strict=True)]
    return lax.slice(
        x,
        [0] * lead + [*start, 0],
        [*x.shape[:lead], *stop, x.shape[-1]],
        [1] * lead + [*stride, 1],
    )


def lines(x: jax.Array, which: jax.Array | np.ndarray, axis: int) -> jax.Array:
    """Return the rows, or columns, `which` of x along an axis >= 0.

    As jnp.take does, which JAX traces several times as slowly.
    """
    rest = tuple(place for place in range(x.ndim) if place != axis)
    numbers = lax.GatherDimensionNumbers(rest, (axis,), (axis,))
    sizes = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return lax.gather(x, which[:, None], numbers, sizes, mode="clip")


def spatial_size(x: jax.Array | np.ndarray) -> Pair:
    """Return (H, W) of x (..., H, W, C); ValueError for fewer than three axes."""
    if x.ndim < 3:
        raise ValueError(f"x: expected (..., H, W, C), got shape {x.shape}")
    return x.shape[-3], x.shape[-2]


def divided_size(x: jax.Array, stride: Pair) -> Pair:
    """Return (H / sh, W / sw) of x (..., H, W, C); ValueError where the stride does not divide."""
    size = spatial_size(x)
    if size[0] % stride[0] or size[1] % stride[1]:
        raise ValueError(
            f"stride: {stride} does not divide the map {size}; allowed here: a stride that does, "
            "for only then is every circular shift of the map sampled alike"
        )
    return size[0] // stride[0], size[1] // stride[1]


def feature_map(x: Any) -> jax.Array:
    """Return x as an array; TypeError unless floating, ValueError unless (..., H, W, C)."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"x: expected an array (..., H, W, C), got {type(x).__name__}")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"x: expected floating values, got {x.dtype}; convert images first, "
            "for example x.astype('float32') / 255"
        )
    if x.ndim < 3 or 0 in x.shape[-3:]:
        raise ValueError(f"x: expected (..., H, W, C) with H, W, C >= 1, got shape {x.shape}")
    return x


def _amount(size: int, window: int, stride: int, padding: str) -> Pair:
    if padding == "VALID":
        return 0, 0
    if padding == "FULL":
        return window - 1, window - 1
    if padding == "SAME":
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        return total // 2, total - total // 2
    return (window - 1) // 2, window // 2


def _reached(size: int, window: int, stride: int, outputs: int, side: Pair) -> Pair:
    """Return `side` (before, after) without the lines after the last window."""
    before, after = side
    return before, min(after, max((outputs - 1) * stride + window - size - before, 0))


def _explicit(padding: Sequence[Sequence[int]]) -> tuple[Pair, Pair]:
    try:
        rows, columns = (pair(tuple(side), "padding", least=0) for side in padding)
    except (TypeError, ValueError):
        raise ValueError(
            f"padding: expected one of {', '.join(PADDINGS)} or ((lo, hi), (lo, hi)) with ints "
            f">= 0, got {padding!r}"
        ) from None
    return rows, columns

"""Low-pass filtering before subsampling, x (..., H, W, C) -> (..., H', W', C).

y = antialias.blur(x, stride=(2, 2), filter_size=3, padding="REFLECT")
"""

from __future__ import annotations

from typing import Annotated

import jax

from cnnjax.ops import local
from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import Number
from cnnjax.ops.filters import binomial
from cnnjax.ops.fusion import unfused
from cnnjax.ops.padding import Padding, Pair
from cnnjax.ops.weighted import weighted

FilterSize = Annotated[int, Number(least=1, most=7, whole=True)]


def blur(
    x: jax.Array, *, stride: Pair, padding: Padding = "VALID", filter_size: FilterSize = 3
) -> jax.Array:
    """Binomial low-pass, then every stride-th sample (BlurPool, Zhang 2019)."""
    x = pads.pad(x, window=(filter_size, filter_size), stride=stride, padding=padding)
    weights = tuple(binomial(filter_size))
    return weighted(x, rows=weights, columns=weights, stride=stride)


def max_blur(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    filter_size: FilterSize = 3,
) -> jax.Array:
    """Dense maximum, then `blur` (MaxBlurPool, Zhang 2019)."""
    x = local.maximum(x, window=window, stride=(1, 1), padding=padding)
    if filter_size > min(stride):
        x = unfused(x)
    return blur(x, stride=stride, padding=padding, filter_size=filter_size)

"""Means between the mean and the maximum, x (..., H, W, C) -> (..., H', W', C).

    y = means.lp(x, window=(3, 3), stride=(2, 2), p=3.0, reduce="sum")

All are computed in float32 or wider on a scale that cannot overflow, and keep x's dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import local, windows
from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import Number, OneOf
from cnnjax.ops.padding import Padding, Pair
from cnnjax.ops.smooth import windowed
from cnnjax.ops.windows import Values

Positive = Annotated[float, Number(above=0)]
Reduce = Annotated[str, OneOf("mean", "sum")]
Combine = Annotated[str, OneOf("mean", "sum", "concat")]


def lp(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    p: Positive = 2.0,
    reduce: Reduce = "mean",
) -> jax.Array:
    """(mean or sum of |x|^p)^(1/p) (Sermanet et al. 2012, who sum); the gradient at 0 is 0."""
    values = _padded(x, window, stride, padding)
    rule = PowerMean(p, 1 if reduce == "sum" else window[0] * window[1])
    return windowed(values, rule, window=window, stride=stride).astype(x.dtype)


def gem(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    p: Positive = 3.0,
    eps: Positive = 1e-6,
) -> jax.Array:
    """(mean of max(x, eps)^p)^(1/p): generalised mean (Radenovic et al. 2018) of each window."""
    sizes = jnp.maximum(_padded(x, window, stride, padding), eps)
    rule = PowerMean(p, window[0] * window[1])
    return windowed(sizes, rule, window=window, stride=stride).astype(x.dtype)


def lse(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    r: Positive = 10.0,
) -> jax.Array:
    """log(mean of exp(r x)) / r: a smooth maximum (Pinheiro and Collobert 2015)."""
    values = _padded(x, window, stride, padding)
    rule = LogMeanExp(r, window[0] * window[1])
    return windowed(values, rule, window=window, stride=stride).astype(x.dtype)


def max_mean(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    combine: Combine = "mean",
) -> jax.Array:
    """Maximum and mean of each window: their mean, sum or concatenation (Mishkin et al. 2017)."""
    peak = local.maximum(x, window=window, stride=stride, padding=padding)
    level = local.mean(x, window=window, stride=stride, padding=padding)
    if combine == "concat":
        return jnp.concatenate([peak, level], axis=-1)
    return peak + level if combine == "sum" else (peak + level) / 2


def softpool(x: jax.Array, *, window: Pair, stride: Pair, padding: Padding = "VALID") -> jax.Array:
    """Mean weighted by exp(x), each channel by itself (Stergiou et al. 2021)."""
    return beta_softmax(x, window=window, stride=stride, padding=padding, beta=1.0)


def beta_softmax(
    x: jax.Array,
    *,
    window: Pair,
    stride: Pair,
    padding: Padding = "VALID",
    beta: Annotated[float, Number()] = 1.0,
) -> jax.Array:
    """Mean weighted by exp(beta x): 0 is the mean, 1 SoftPool, infinity the maximum."""
    values = _padded(x, window, stride, padding)
    return windowed(values, SoftMean(beta), window=window, stride=stride).astype(x.dtype)


@dataclass(frozen=True)
class PowerMean:
    """(sum of |value|^p / count)^(1/p)."""

    p: float | jax.Array
    count: int

    def statistics(self, values: Values) -> tuple[jax.Array]:
        """Return the power mean."""
        sizes = windows.each(_size, values)
        # The function is homogeneous, so the scale may be taken for a constant in derivatives.
        scale = lax.stop_gradient(windows.largest(sizes))
        regular = (scale > 0) & jnp.isfinite(scale)
        safe = jnp.where(regular, scale, 1)
        powers = windows.each(lambda v: _power(_where(regular, v / safe, 1), self.p), sizes)
        total = windows.total(powers) / self.count
        return (jnp.where(regular, safe * total ** (1 / self.p), scale),)

    def slope(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return (|x| / y)^(p - 1) / count with the sign of x; 0 in a window of zeros."""
        regular = (y > 0) & jnp.isfinite(y)
        ratio = jnp.where(regular, jnp.abs(x) / jnp.where(regular, y, 1), 1)
        return jnp.where(regular, jnp.sign(x) * _power(ratio, self.p - 1) / self.count, 0)

    @property
    def factors(self) -> Callable[..., tuple[jax.Array, jax.Array]] | None:
        """Return x and 1 / (y count) for p = 2; other powers leave the range of floating point."""
        return self._factors if isinstance(self.p, float | int) and self.p == 2 else None

    def _factors(self, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Below this (2^-110 in f32) the factor could overflow: there the slope fades to 0.
        least = jnp.finfo(y.dtype).tiny * 2.0**16
        inverse = 1 / (jnp.maximum(y, least) * self.count)
        return jnp.where(jnp.isfinite(x), x, 0), jnp.where((y > 0) & jnp.isfinite(y), inverse, 0)


@dataclass(frozen=True)
class LogMeanExp:
    """log(sum of exp(r value) / count) / r."""

    r: float | jax.Array
    count: int
    factors = None

    def statistics(self, values: Values) -> tuple[jax.Array]:
        """Return the smooth maximum."""
        peak = lax.stop_gradient(windows.largest(values))
        regular = jnp.isfinite(peak)
        safe = jnp.where(regular, peak, 0)
        raised = windows.each(lambda v: jnp.exp(self.r * _where(regular, v - safe)), values)
        level = jnp.log(windows.total(raised) / self.count) / self.r
        return (jnp.where(regular, peak + level, peak),)

    def slope(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Return exp(r (x - y)) / count."""
        regular = jnp.isfinite(y)
        share = jnp.exp(self.r * (x - jnp.where(regular, y, 0))) / self.count
        return jnp.where(regular, share, 0)


@dataclass(frozen=True)
class SoftMean:
    """Mean of the values weighted by exp(beta value)."""

    beta: float | jax.Array
    factors = None

    def statistics(self, values: Values) -> tuple[jax.Array, jax.Array]:
        """Return the mean and the logarithm of the sum of the weights."""
        return _soft_mean(values, windows.each(lambda v: self.beta * v, values))

    def slope(self, x: jax.Array, y: jax.Array, level: jax.Array) -> jax.Array:
        """Return weight * (1 + beta (x - y))."""
        weight = jnp.exp(self.beta * x - level)
        return jnp.where(weight > 0, weight * (1 + self.beta * (x - y)), 0)


def softmax_mean(values: Values, logits: Values) -> jax.Array:
    """Mean over the K values weighted by exp(logits); infinite windows stay so, NaN spreads."""
    peak = lax.stop_gradient(windows.largest(logits))
    return jnp.where(jnp.isnan(peak), peak, _soft_mean(values, logits)[0])


def _soft_mean(values: Values, logits: Values) -> tuple[jax.Array, jax.Array]:
    peak = lax.stop_gradient(windows.largest(logits))
    regular = jnp.isfinite(peak)
    safe = jnp.where(regular, peak, 0)
    weights = windows.each(lambda a: jnp.exp(_where(regular, a - safe)), logits)
    # A weight of 0 drops its value even where that is -inf.
    parts = windows.each(lambda w, v: _where(w > 0, w * v), weights, values)
    total = windows.total(weights)
    return windows.total(parts) / total, jnp.where(regular, safe + jnp.log(total), jnp.inf)


@jax.custom_jvp
def _size(x: jax.Array) -> jax.Array:
    return jnp.abs(x)


# JAX's own slope of |x| at 0 is 1.
_size.defjvps(lambda dx, y, x: jnp.sign(x) * dx)


def _where(condition: jax.Array, x: jax.Array, other: float = 0.0) -> jax.Array:
    # Not jnp.where: the ONNX converter puts its own there, which knows no vmap.
    return lax.select(condition, x, jnp.full_like(x, other))


def _power(x: jax.Array, p: float | jax.Array) -> jax.Array:
    if not isinstance(p, jax.Array) and float(p).is_integer():
        return lax.integer_pow(x, int(p))
    zero = x == 0  # where x^p has no slope for p < 1, and here none
    return jnp.where(zero, 0, jnp.where(zero, 1, x) ** p)


def _padded(x: jax.Array, window: Pair, stride: Pair, padding: Padding) -> jax.Array:
    return pads.pad(windows.wide(x), window=window, stride=stride, padding=padding)

"""Smooth functions of every window with a fast backward pass, x (..., H, W, C) -> (..., H', W', C).

    y = smooth.windowed(x, SoftMean(beta=1.0), window=(3, 3), stride=(2, 2))

What JAX derives keeps or adds up one map a tap. Here a rule says, beside the value of a window, the
slope of that value in one of its pixels, as a function of the pixel and of a few statistics of the
window. The backward pass then gathers: a pixel adds up slope times cotangent over the windows that
cover it, and beside x only the statistics are kept. Derivatives of every order and mode work.

A GPU spends its time on reading one value of each map a window. A slope that is a product, of
what the pixel gives and what the window gives, lets it read one map only (an H200: 134 to 102 us
for L2 with window 3 at stride 1).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np
from jax import lax

from cnnjax.ops import padding as pads
from cnnjax.ops import windows
from cnnjax.ops.coverage import UNROLLED, covered
from cnnjax.ops.fusion import apart, together
from cnnjax.ops.multilinear import Function, multilinear
from cnnjax.ops.padding import Pair
from cnnjax.ops.weighted import covering
from cnnjax.ops.windows import Values

# Taps up to which a CPU finds all statistics in one loop, half of the exponentials of SoftPool; of
# 16 taps XLA makes a loop without vectors, at five times the time.
AT_ONCE = 9


class Rule(Protocol):
    """What is computed from a window: a frozen dataclass of numbers."""

    @property
    def statistics(self) -> Callable[[Values], tuple[jax.Array, ...]]:
        """The K values of every window, in any order -> (their value, what else `slope` needs)."""

    @property
    def slope(self) -> Callable[..., jax.Array]:
        """(x, *statistics) -> the derivative of the value in a pixel x of the window."""

    @property
    def factors(self) -> Callable[..., tuple[jax.Array, jax.Array]] | None:
        """(x, *statistics), whole maps -> the slope as a factor of the pixel and one of the window.

        None where no such factors stay within the range of floating point.
        """


def windowed(x: jax.Array, rule: Rule, *, window: Pair, stride: Pair) -> jax.Array:
    """Return the rule's value of each VALID window of x (..., H, W, C)."""
    learned = any(isinstance(value, jax.Array) for value in vars(rule).values())
    if learned or window[0] * window[1] > UNROLLED:
        return rule.statistics(windows.stacked(x, window=window, stride=stride))[0]
    return _windowed(rule, window, stride, x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _windowed(rule: Rule, window: Pair, stride: Pair, x: jax.Array) -> jax.Array:
    return rule.statistics(pads.taps(x, window=window, stride=stride))[0]


@_windowed.defjvp
def _tangent(
    rule: Rule, window: Pair, stride: Pair, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    statistics = _statistics(rule, window, stride, x)
    return statistics[0], _sloped(dx, x, *statistics, rule=rule, window=window, stride=stride)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _statistics(rule: Rule, window: Pair, stride: Pair, x: jax.Array) -> tuple[jax.Array, ...]:
    def at_once(x: jax.Array) -> tuple[jax.Array, ...]:
        return together(*rule.statistics(pads.taps(x, window=window, stride=stride)))

    one_by_one = functools.partial(_one_by_one, rule, window, stride)
    if window[0] * window[1] > AT_ONCE:
        return tuple(map(apart, one_by_one(x)))
    return lax.platform_dependent(x, cpu=at_once, default=one_by_one)


@_statistics.defjvp
def _statistics_tangent(
    rule: Rule, window: Pair, stride: Pair, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    return jax.jvp(functools.partial(_one_by_one, rule, window, stride), primals, tangents)


def _one_by_one(rule: Rule, window: Pair, stride: Pair, x: jax.Array) -> tuple[jax.Array, ...]:
    # Each in an order of its own, or XLA finds what two statistics share and keeps it: K maps.
    taps = pads.taps(x, window=window, stride=stride)
    orders = rule.statistics(taps), rule.statistics(taps[::-1])
    return tuple(orders[place % 2][place] for place in range(len(orders[0])))


def _slope_sum(
    dx: jax.Array, x: jax.Array, *statistics: jax.Array, rule: Rule, window: Pair, stride: Pair
) -> jax.Array:
    pairs = zip(*(pads.taps(a, window=window, stride=stride) for a in (dx, x)), strict=True)
    return functools.reduce(operator.add, (d * rule.slope(v, *statistics) for d, v in pairs))


def _slope_spread(
    g: jax.Array, x: jax.Array, *statistics: jax.Array, rule: Rule, window: Pair, stride: Pair
) -> jax.Array:
    if rule.factors is None:
        return _slope_by_slope(g, x, *statistics, rule=rule, window=window, stride=stride)
    inner, outer = rule.factors(x, *statistics)
    rows, columns = ((1.0,) * length for length in window)
    size = pads.spatial_size(x)
    return inner * covering(g * outer, rows=rows, columns=columns, stride=stride, size=size)


def _slope_by_slope(
    g: jax.Array, x: jax.Array, *statistics: jax.Array, rule: Rule, window: Pair, stride: Pair
) -> jax.Array:
    def term(tap: np.ndarray, g: jax.Array, *rest: jax.Array) -> jax.Array:
        *statistics, x = rest
        return g * rule.slope(x, *statistics)

    size = pads.spatial_size(x)
    return covered(term, (g, *statistics), window=window, stride=stride, size=size, own=(x,))


def _transposed_sum(g: jax.Array, x: jax.Array, *statistics: jax.Array, **static: Any) -> jax.Array:
    """Return `_slope_by_slope`, to be derived: here no pixel meets a window not over it.

    The slope of such a pair is not counted there, but may be infinite, and its derivative NaN.
    """

    def forward(dx: jax.Array) -> jax.Array:
        return _slope_sum(dx, x, *statistics, **static)

    (dx,) = jax.linear_transpose(forward, x)(g)
    return dx


_sloped: Function = multilinear(
    "sloped",
    _slope_sum,
    {0: lambda g, dx, *rest, **static: _spread(g, *rest, **static)},
    derived=_slope_sum,
)
_spread: Function = multilinear(
    "slope_spread",
    _slope_spread,
    {0: lambda dx, g, *rest, **static: _sloped(dx, *rest, **static)},
    cpu=_slope_by_slope,
    derived=_transposed_sum,
)

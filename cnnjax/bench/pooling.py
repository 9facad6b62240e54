"""Pooling (128, 32, 32, 64) float32 beside stock Flax and PyTorch channels_last.

Stock is what a Flax user writes: `flax.linen` for max, min and mean, `lax.reduce_window` for the
sum, a depthwise convolution for blurs, SoftPool and L2 as ratios or roots of mean pools. For aps
and max_aps, which neither library has, the other candidate is our max of the same stride; max_aps
by l_inf, where two components nearly always tie, which costs the reading of fingerprints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.pooling import min_pool
from jax import lax

from cnnjax.bench import torch
from cnnjax.bench.measure import Candidate, Cell, compiled
from cnnjax.layers.pooling import pool
from cnnjax.ops.antialias import binomial

SHAPE = (128, 32, 32, 64)
SIZES = ((2, 2), (3, 2), (3, 1), (5, 2))
AROUND_APS = {"aps": ((2, 2),), "max_aps l_inf": ((2, 2), (3, 2))}
GROUP = ("method", "pass")

Function = Callable[[jax.Array], jax.Array]


def cells() -> Iterator[Cell]:
    """Yield every method x (window, stride) x pass."""
    for method in OTHERS:
        for window, stride in AROUND_APS.get(method, SIZES):
            for name in ("forward", "forward+backward"):
                labels = {"method": method, "window/stride": f"{window}/{stride}", "pass": name}
                yield Cell(labels, partial(candidates, method, window, stride, name))


def candidates(method: str, window: int, stride: int, name: str) -> dict[str, Candidate | str]:
    """Return ours, stock and PyTorch's form of one pass."""
    ours, stock, others = OTHERS[method](window, stride)
    x = jax.random.normal(jax.random.key(0), SHAPE)
    functions = {"cnnjax": ours, **stock}
    made: dict[str, Candidate | str]
    if name == "forward":
        made = {key: compiled(function, x) for key, function in functions.items()}
        theirs = torch.forward
    else:
        g = jax.random.normal(jax.random.key(1), jax.eval_shape(ours, x).shape)
        made = {key: compiled(with_gradient(f), x, g) for key, f in functions.items()}
        theirs = torch.forward_backward
    return {**made, "torch": others if isinstance(others, str) else theirs(others, SHAPE)}


def with_gradient(function: Function) -> Callable[[jax.Array, jax.Array], object]:
    """Return (x, g) -> (value, gradient)."""

    def both(x: jax.Array, g: jax.Array) -> object:
        y, pull = jax.vjp(function, x)
        return y, pull(g)[0]

    return both


def _max(k: int, s: int) -> tuple:
    stock = partial(nn.max_pool, window_shape=(k, k), strides=(s, s))
    return _ours("max", k, s), {"flax": stock}, lambda F, x: F.max_pool2d(x, k, s)


def _min(k: int, s: int) -> tuple:
    stock = partial(min_pool, window_shape=(k, k), strides=(s, s))
    return _ours("min", k, s), {"flax": stock}, lambda F, x: -F.max_pool2d(-x, k, s)


def _mean(k: int, s: int) -> tuple:
    return _ours("mean", k, s), {"flax": _average(k, s)}, lambda F, x: F.avg_pool2d(x, k, s)


def _sum(k: int, s: int) -> tuple:
    def stock(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, 0.0, lax.add, (1, k, k, 1), (1, s, s, 1), "VALID")

    def other(F: Any, x: Any) -> Any:
        return F.avg_pool2d(x, k, s, divisor_override=1)

    return _ours("sum", k, s), {"lax": stock}, other


def _lp(k: int, s: int) -> tuple:
    def stock(x: jax.Array) -> jax.Array:
        return jnp.sqrt(_average(k, s)(jnp.square(x)))

    return _ours("lp", k, s), {"flax": stock}, lambda F, x: F.lp_pool2d(x, 2.0, k, s)


def _softpool(k: int, s: int) -> tuple:
    average = _average(k, s)

    def stock(x: jax.Array) -> jax.Array:
        weights = jnp.exp(x)
        return average(weights * x) / average(weights)

    def other(F: Any, x: Any) -> Any:
        weights = x.exp()
        return F.avg_pool2d(weights * x, k, s) / F.avg_pool2d(weights, k, s)

    return _ours("softpool", k, s), {"flax": stock}, other


def _blur(k: int, s: int) -> tuple:
    ours = _pool("blur", stride=s, filter_size=k)
    return ours, {"depthwise": _depthwise(k, s)}, _torch_blur(k, s)


def _max_blur(k: int, s: int) -> tuple:
    dense = partial(nn.max_pool, window_shape=(k, k), strides=(1, 1))
    blurred, other = _depthwise(k, s), _torch_blur(k, s)

    def stock(x: jax.Array) -> jax.Array:
        return blurred(dense(x))

    ours = _pool("max_blur", window=k, stride=s, filter_size=k)
    return ours, {"depthwise": stock}, lambda F, x: other(F, F.max_pool2d(x, k, 1))


def _aps(k: int, s: int) -> tuple:
    return _pool("aps", stride=s), {"our max": _ours("max", k, s)}, "PyTorch has no such pool"


def _max_aps(k: int, s: int) -> tuple:
    ours = _pool("max_aps", window=k, stride=s, p=float("inf"))
    peer = _pool("max", window=k, stride=s, padding="CIRCULAR")
    return ours, {"our max": peer}, "PyTorch has no such pool"


def _ours(method: str, k: int, s: int) -> Function:
    return _pool(method, window=k, stride=s)


def _pool(method: str, **arguments: Any) -> Function:
    return lambda x: pool(x, method, **arguments)


def _average(k: int, s: int) -> Function:
    return partial(nn.avg_pool, window_shape=(k, k), strides=(s, s))


def _depthwise(k: int, s: int) -> Function:
    row = jnp.asarray(binomial(k))
    kernel = jnp.tile(jnp.outer(row, row)[:, :, None, None], (1, 1, 1, SHAPE[-1]))

    def blur(x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            (s, s),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=SHAPE[-1],
        )

    return blur


def _torch_blur(k: int, s: int) -> Callable:
    if torch.torch() is None:
        return lambda F, x: x
    row = torch.torch().tensor(binomial(k), device=torch.device())
    kernel = torch.torch().outer(row, row).expand(SHAPE[-1], 1, k, k).contiguous()
    return lambda F, x: F.conv2d(x, kernel, stride=s, groups=SHAPE[-1])


OTHERS: dict[str, Callable[[int, int], tuple]] = {
    "max": _max,
    "min": _min,
    "mean": _mean,
    "sum": _sum,
    "lp": _lp,
    "blur": _blur,
    "max_blur": _max_blur,
    "softpool": _softpool,
    "aps": _aps,
    "max_aps l_inf": _max_aps,
}

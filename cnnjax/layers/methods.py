"""POOLS: every pooling method's card, by name.

    POOLS["aps"].equivariance, POOLS["lp"].params

A new method is one function (ops) or one Linen module (layers) plus one row here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax

from cnnjax import spec
from cnnjax.ops import antialias, local, polyphase
from cnnjax.ops import padding as pads

STRUCTURE = ("window", "stride", "padding")


@dataclass(frozen=True, kw_only=True)
class PoolingMethod:
    """What a method is, takes, claims and cites; what it takes is read off its signature."""

    function: Callable[..., jax.Array]
    summary: str
    equivariance: str
    identity_at_stride_1: bool = False
    learnable: bool = False
    stochastic: bool = False

    @property
    def defaults(self) -> dict[str, Any]:
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def takes(self) -> tuple[str, ...]:
        """Which of window, stride and padding the method takes."""
        return tuple(name for name in STRUCTURE if name in self.defaults)

    @property
    def params(self) -> dict[str, Any]:
        """The method's own parameters with their defaults."""
        return {k: v for k, v in self.defaults.items() if k not in STRUCTURE}

    def arguments(
        self, window: Any, stride: Any, padding: Any, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Check and complete the arguments of one call."""
        window = window if "window" not in self.takes or window is not None else stride
        stride = stride if stride is not None else window
        given = {"window": window, "stride": stride, "padding": padding}
        result = {name: value for name, value in given.items() if value is not None}
        for name in ("window", "stride"):
            if name in result:
                result[name] = pads.pair(result[name], name)
        return result | dict(params)


def _aps(x: jax.Array, *, stride: pads.Pair, padding: pads.Padding = "CIRCULAR") -> jax.Array:
    return polyphase.aps(x, stride=stride)[0]


POOLS: Mapping[str, PoolingMethod] = {
    "max": PoolingMethod(function=local.maximum, summary="largest value of a window", equivariance="P1"),
    "min": PoolingMethod(function=local.minimum, summary="smallest value of a window", equivariance="P1"),
    "sum": PoolingMethod(function=local.total, summary="sum of a window", equivariance="P1"),
    "mean": PoolingMethod(function=local.mean, summary="mean of a window", equivariance="P1"),
    "decimate": PoolingMethod(function=local.decimate, summary="every s-th sample", equivariance="P1", identity_at_stride_1=True),
    "blur": PoolingMethod(function=antialias.blur, summary="binomial blur, then every s-th sample", equivariance="P1"),
    "max_blur": PoolingMethod(function=antialias.max_blur, summary="dense max, blur, subsample", equivariance="P1"),
    "aps": PoolingMethod(function=_aps, summary="the polyphase component of largest norm", equivariance="P2", identity_at_stride_1=True),
}

"""HEADS: what turns the last feature map into a vector, x (..., H, W, C) -> (..., F).

v = HEADS["gap"].module(name="head")(x)
card, params = parse_head("gem:p=4")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from cnnjax import spec
from cnnjax.ops import allowed, heads
from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import Number


class FixedHead(nn.Module, kw_only=True):
    """A parameter-free head: a function of arrays and its arguments."""

    function: Callable[..., jax.Array]
    arguments: Mapping[str, Any]

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        return self.function(pads.feature_map(x), **self.arguments)


class Attention(nn.Module, kw_only=True):
    """Softmax over all places of trained queries' scores weighs trained values: (..., C).

    `queries` must divide the channels; each weighs its share of them.
    """

    queries: Annotated[int, Number(least=1, whole=True)] = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        values = heads.places(pads.feature_map(x))
        channels = x.shape[-1]
        if channels % self.queries:
            raise ValueError(
                f"queries: expected a divisor of the {channels} channels, got {self.queries}"
            )
        scores = nn.Dense(self.queries, use_bias=False, name="scores")(values)
        weights = jax.nn.softmax(scores / math.sqrt(channels), axis=0)[..., None]
        values = nn.Dense(channels, use_bias=False, name="values")(values)
        shares = values.reshape(*values.shape[:-1], self.queries, channels // self.queries)
        pooled = jnp.sum(weights * shares, axis=0)
        return pooled.reshape(values.shape[1:]).astype(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A row of HEADS; `blind` heads do not see where in the map a value stands."""

    name: str
    summary: str
    cites: tuple[str, ...]
    blind: bool
    function: Any = None
    layer: Any = None

    @cached_property
    def parameters(self) -> dict[str, allowed.Parameter]:
        """Every parameter with its default and allowed values."""
        found = allowed.parameters(self.function or self.layer)
        return {name: value for name, value in found.items() if name not in ("parent", "name")}

    @property
    def params(self) -> dict[str, Any]:
        """The head's parameters with their defaults."""
        return {name: parameter.default for name, parameter in self.parameters.items()}

    def check(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters; ValueError or TypeError names the wrong one and what is allowed."""
        for name in params:
            if name not in self.parameters:
                able = ", ".join(self.parameters) or "none"
                raise ValueError(
                    f"{name}: unknown parameter of head {self.name!r}; allowed: {able}"
                )
        return {name: self.parameters[name].check(name, value) for name, value in params.items()}

    def module(self, *, name: str | None = None, **params: Any) -> nn.Module:
        """Build the head's Linen module; call it module(x, train=...)."""
        checked = self.check(params)
        if self.layer is not None:
            return self.layer(name=name, **checked)
        arguments: Any = FrozenDict(checked)
        return FixedHead(function=self.function, arguments=arguments, name=name)


def parse_head(text: str) -> tuple[Head, dict[str, Any]]:
    """Read a head such as "gem:p=4": its card and checked parameters."""
    name, params = spec.parse(text)
    card = spec.find(HEADS, name, "head")
    return card, card.check(params)


ROWS = (
    Head(
        name="gap",
        function=heads.gap,
        summary="mean over all places",
        cites=("lin2014",),
        blind=True,
    ),
    Head(
        name="gmp",
        function=heads.gmp,
        summary="maximum over all places",
        cites=("oquab2015",),
        blind=True,
    ),
    Head(
        name="gap_gmp",
        function=heads.gap_gmp,
        summary="mean and maximum side by side, 2 C values",
        cites=("woo2018",),
        blind=True,
    ),
    Head(
        name="gem",
        function=heads.gem,
        summary="generalised mean of the positive part over all places",
        cites=("radenovic2018",),
        blind=True,
    ),
    Head(
        name="lse",
        function=heads.lse,
        summary="log of the mean exponential over all places",
        cites=("pinheiro2015",),
        blind=True,
    ),
    Head(
        name="topk_mean",
        function=heads.topk_mean,
        summary="mean of the k largest values of each channel",
        cites=("durand2016",),
        blind=True,
    ),
    Head(
        name="attention",
        layer=Attention,
        summary="mean weighted by a trained query's attention, without positional embedding",
        cites=("vaswani2017",),
        blind=True,
    ),
    Head(
        name="flatten",
        function=heads.flatten,
        summary="all values row by row; keeps the place, so it is not blind to shifts",
        cites=("lecun1998",),
        blind=False,
    ),
)

HEADS: Mapping[str, Head] = {card.name: card for card in ROWS}

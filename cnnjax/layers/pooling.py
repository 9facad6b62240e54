"""Pooling by name: `pool(x, "max", ...)` for arrays, `Pool("max", ...)` for Flax models.

    y = pool(x, "max", window=3, stride=2, padding="CIRCULAR")
    module = Pool("aps", stride=2)
    card, params = parse("lp:p=3:reduce=sum")       # an arm of a study as one word

Both look the method up in POOLS (layers/methods.py) and check every argument against its card.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
from flax.core import FrozenDict

from cnnjax import spec
from cnnjax.layers.canonical import inner_arguments
from cnnjax.layers.card import PoolingMethod
from cnnjax.layers.heads import HEADS, parse_head
from cnnjax.layers.learned import TrainedPool
from cnnjax.layers.methods import POOLS
from cnnjax.layers.module import FixedPool, PolyphasePool
from cnnjax.layers.samplers import CanonicalPool
from cnnjax.ops import padding as pads
from cnnjax.ops import polyphase
from cnnjax.ops.padding import Padding

__all__ = ["HEADS", "POOLS", "Pool", "canonical_arm", "parse", "parse_head", "pool", "unpool"]

Size = int | tuple[int, int] | None


def pool(
    x: jax.Array,
    method: str,
    /,
    *,
    window: Size = None,
    stride: Size = None,
    padding: pads.Padding | None = None,
    phase: jax.Array | None = None,
    return_phase: bool = False,
    **params: Any,
) -> Any:
    """Pool x (..., H, W, C) -> (..., H', W', C) by a parameter-free row of POOLS.

    window and stride are an int or two; one of them stands for both where the method takes both.
    Polyphase methods also take a `phase` (...,) to use and, with `return_phase`, return (y, phase).
    The dtype is kept. Raises ValueError (TypeError for a wrong type) naming the wrong argument.
    """
    card = spec.find(POOLS, method, "pool").given(params)
    if card.function is None:
        raise ValueError(
            f"pool: {method!r} has parameters or randomness; use the module Pool({method!r}, ...)"
        )
    if params.pop("learn", False):
        raise ValueError(f"learn: only Pool({method!r}, learn=True) can train a parameter")
    arguments = card.arguments(window, stride, padding, params)
    x = pads.feature_map(x)
    if not card.phased:
        _refuse_phase(card, phase, return_phase)
        return card.function(x, **arguments)
    y, choice = card.function(x, phase=phase, **arguments)
    return (y, choice.phase) if return_phase else y


def unpool(y: jax.Array, phase: jax.Array, *, stride: Size, size: Size = None) -> jax.Array:
    """Put y (..., H', W', C) back at its phase (...,), zeros elsewhere: (..., H, W, C).

    The transposed twin of the polyphase methods (APS-U, Chaman and Dokmanic 2021); `size` = (H, W).
    """
    whole = None if size is None else pads.pair(size, "size")
    stride = pads.pair(stride, "stride")
    return polyphase.unpool(pads.feature_map(y), phase, stride=stride, size=whole)


def Pool(
    method: str,
    /,
    *,
    window: Size = None,
    stride: Size = None,
    padding: pads.Padding | None = None,
    name: str | None = None,
    **params: Any,
) -> nn.Module:
    """Build the Linen module of a row of POOLS; call it module(x, train=..., temperature=...).

    Modules compare and hash by value. `learn=True` trains the parameter of lp, gem, lse,
    beta_softmax and blur. Raises as `pool` does, here and not when called.
    """
    card = spec.find(POOLS, method, "pool").given(params)
    learn = _learn(card, params.pop("learn", False))
    arguments = card.arguments(window, stride, padding, params)
    layer = card.learned_layer if learn else card.layer
    if layer is not None:
        return layer(method=method, name=name, **arguments)
    inner = arguments.get("inner")
    if inner is not None and inner.function is None:
        return _canonical_layer(arguments, name)
    frozen: Any = FrozenDict(arguments)
    if learn:
        return TrainedPool(
            method=method,
            function=card.function,
            parameter=str(card.learns),
            start=(card.params | params)[str(card.learns)],
            least=card.learns_above,
            arguments=frozen,
            name=name,
        )
    if card.phased:
        return PolyphasePool(method=method, function=card.function, arguments=frozen, name=name)
    return FixedPool(
        method=method,
        function=card.function,
        dense_function=card.dense,
        arguments=frozen,
        name=name,
    )


def _canonical_layer(arguments: dict[str, Any], name: str | None) -> nn.Module:
    inner, stride, padding = (arguments[key] for key in ("inner", "stride", "padding"))
    norm, own = arguments.get("p", 2), inner_arguments(arguments)
    layer = inner.layer(method=inner.name, padding=padding, **own)
    return CanonicalPool(
        method="canonical", inner=layer, stride=stride, padding=padding, p=norm, name=name
    )


def parse(text: str) -> tuple[PoolingMethod, dict[str, Any]]:
    """Read an arm such as "lp:p=3:reduce=sum": its card and checked parameters."""
    name, params = spec.parse(text)
    card = spec.find(POOLS, name, "pool").given(params)
    own = dict(params)
    learn = _learn(card, own.pop("learn", False))
    return card, card.check(own) | ({"learn": True} if learn else {})


def canonical_arm(
    text: str, window: Size, stride: Size, padding: Padding | None = None
) -> str | None:
    """Return the simpler arm that is the same function as this one; None where there is none.

    At stride 1, for example, "aps" is "decimate" (the identity), and so is "max" at window 1.
    """
    card, params = parse(text)
    if params.pop("learn", False):
        return None
    window = window if "window" in card.takes else None
    padded = {} if padding is None else {"padding": padding}
    return card.same_as(card.arguments(window, stride, None, params) | padded)


def _learn(card: PoolingMethod, learn: Any) -> bool:
    if not isinstance(learn, bool):
        raise TypeError(f"learn: expected True or False, got {learn!r}")
    if learn and card.learns is None:
        able = ", ".join(row.name for row in POOLS.values() if row.learns is not None)
        raise ValueError(f"learn: pool {card.name!r} has nothing to train; allowed for {able}")
    return learn


def _refuse_phase(card: PoolingMethod, phase: Any, return_phase: bool) -> None:
    if phase is not None or return_phase:
        name = "phase" if phase is not None else "return_phase"
        able = ", ".join(row.name for row in POOLS.values() if row.phased)
        raise ValueError(f"{name}: pool {card.name!r} selects no phase; allowed for {able}")

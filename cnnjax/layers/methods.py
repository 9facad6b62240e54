"""POOLS: every pooling method's card, by name.

    POOLS["aps"].equivariance, POOLS["lp"].params

A new method is one function (ops) or one Linen module (layers) plus one row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import jax

from cnnjax.layers.card import Arguments, PoolingMethod
from cnnjax.ops import antialias, local, polyphase
from cnnjax.ops.allowed import OneOf
from cnnjax.ops.padding import Pair
from cnnjax.ops.polyphase import Choice, Norm

Circular = Annotated[str, OneOf("CIRCULAR")]


def _aps(
    x: jax.Array,
    *,
    stride: Pair,
    padding: Circular = "CIRCULAR",
    p: Norm = 2,
    phase: jax.Array | None = None,
) -> tuple[jax.Array, Choice]:
    del padding
    return _select(x, x, stride=stride, p=p, phase=phase)


def _select(
    x: jax.Array, judged: jax.Array, *, stride: Pair, p: Norm, phase: jax.Array | None
) -> tuple[jax.Array, Choice]:
    choice = polyphase.choose(judged, stride=stride, p=p)
    if phase is not None:
        choice = choice._replace(phase=phase)
    return polyphase.sample(x, choice.phase, stride=stride), choice


def _area(arguments: Arguments) -> float:
    return float(arguments["window"][0] * arguments["window"][1])


def _at_window_1(arguments: Arguments) -> str | None:
    return "decimate" if arguments["window"] == (1, 1) else None


def _at_stride_1(arguments: Arguments) -> str | None:
    return "decimate" if arguments["stride"] == (1, 1) else None


def _blur_as(arguments: Arguments) -> str | None:
    return "decimate" if arguments.get("filter_size", 3) == 1 else None


def _max_blur_as(arguments: Arguments) -> str | None:
    size = arguments.get("filter_size", 3)
    if size == 1:
        return _at_window_1(arguments) or "max"
    return f"blur:filter_size={size}" if arguments["window"] == (1, 1) else None


def _box_is_stride(arguments: Arguments) -> bool:
    return arguments["window"] == arguments["stride"]


def _binomial_vanishes(arguments: Arguments) -> bool:
    # (1 + z)^(m - 1) has its only zero at z = -1, the one alias of stride 2.
    exact = arguments.get("filter_size", 3) >= 2
    return all(s == 1 or (s == 2 and exact) for s in arguments["stride"])


ROWS = (
    PoolingMethod(
        name="max",
        function=local.maximum,
        summary="largest value of each window",
        formula="y = max_W x",
        cites=("riesenhuber1999", "scherer2010"),
        equivariance="P1",
        same_as=_at_window_1,
    ),
    PoolingMethod(
        name="min",
        function=local.minimum,
        summary="smallest value of each window",
        formula="y = min_W x",
        cites=("scherer2010",),
        equivariance="P1",
        same_as=_at_window_1,
    ),
    PoolingMethod(
        name="sum",
        function=local.total,
        summary="sum of each window",
        formula="y = sum_W x",
        cites=("lecun1998",),
        equivariance="P1",
        gain=_area,
        last_stage_exact=_box_is_stride,
        same_as=_at_window_1,
    ),
    PoolingMethod(
        name="mean",
        function=local.mean,
        summary="mean of each window",
        formula="y = mean_W x",
        cites=("lecun1990",),
        equivariance="P1",
        last_stage_exact=_box_is_stride,
        same_as=_at_window_1,
    ),
    PoolingMethod(
        name="decimate",
        function=local.decimate,
        summary="every s-th row and column, no filter: what a strided convolution does",
        formula="y[i, j] = x[s i, s j]",
        cites=("springenberg2015",),
        equivariance="P1",
        position="after_conv",
        nan="kept where it is sampled",
    ),
    PoolingMethod(
        name="blur",
        function=antialias.blur,
        summary="binomial low-pass, then every s-th sample",
        formula="y = (h * x)[s i, s j], h = row m - 1 of Pascal's triangle / 2^(m - 1), m taps",
        cites=("zhang2019",),
        equivariance="P1",
        last_stage_exact=_binomial_vanishes,
        same_as=_blur_as,
    ),
    PoolingMethod(
        name="max_blur",
        function=antialias.max_blur,
        summary="dense maximum, binomial low-pass, then every s-th sample",
        formula="y = (h * max_W x)[s i, s j]",
        cites=("zhang2019",),
        equivariance="P1",
        last_stage_exact=_binomial_vanishes,
        same_as=_max_blur_as,
    ),
    PoolingMethod(
        name="aps",
        function=_aps,
        phased=True,
        has_dense=False,
        summary="the polyphase component of largest norm",
        formula="y = x_k, k = argmax_k ||x_k||_p over H, W and C jointly, x_k = x[i::s, j::s]",
        cites=("chaman2021",),
        equivariance="P2",
        same_as=_at_stride_1,
        nan="the map's phase is not defined",
    ),
)

POOLS: Mapping[str, PoolingMethod] = {card.name: card for card in ROWS}

"""Pools by chance: random in training, from the rng collection "pool"; a fixed rule in evaluation.

y = Pool("stochastic", window=2).apply({}, x, train=True, rngs={"pool": key})
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers.learned import Share, shared
from cnnjax.layers.module import WindowPooling, random_key
from cnnjax.ops import chance, local
from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import Number, OneOf
from cnnjax.ops.padding import Padding, Pair


class Stochastic(WindowPooling, kw_only=True):
    """Draws a value with probability x / sum x; evaluation: sum x^2 / sum x."""

    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        take = self.over(stride)
        return (
            chance.stochastic(random_key(self), x, **take)
            if train
            else (chance.expected_stochastic(x, **take))
        )


class MixedRandom(WindowPooling, kw_only=True):
    """Maximum or mean by a coin for the layer or each channel; evaluation: what was drawn more.

    Yu et al. 2014. "batch_stats" counts the calls in training and how many were maxima.
    """

    share: Share = "layer"

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        count = shared(self.share, x)
        maxima = self.variable("batch_stats", "maxima", jnp.zeros, (count,))
        calls = self.variable("batch_stats", "calls", jnp.zeros, ())
        heads = 2 * maxima.value >= calls.value
        if train:
            heads = jax.random.bernoulli(random_key(self), 0.5, (count,))
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                maxima.value = maxima.value + heads
                calls.value = calls.value + 1
        take = self.over(stride)
        heads = heads.reshape((1,) * (x.ndim - 1) + (count,))
        return jnp.where(heads, local.maximum(x, **take), local.mean(x, **take))


class MaxDropout(WindowPooling, kw_only=True):
    """Maximum of what dropout leaves of each window; evaluation: its mean (Wu and Gu 2015)."""

    rate: Annotated[float, Number(least=0, below=1)] = 0.5

    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        take = self.over(stride)
        if train:
            return chance.max_dropout(random_key(self), x, rate=self.rate, **take)
        return chance.expected_max_dropout(x, rate=self.rate, **take)


class S3(WindowPooling, kw_only=True):
    """Dense maximum, then random rows and columns of each grid cell; evaluation: block means.

    Zhai et al. 2017. `grid` is the cell's side in pixels, None for the whole map.
    """

    padding: Padding = "ZEROS"
    grid: Annotated[int | None, Number(least=1, whole=True, optional=True)] = None

    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        if not train:
            return chance.expected_s3(
                x,
                window=self.window,
                stride=self.stride,
                padding=self.padding,
                dense=stride != self.stride,
            )
        size = pads.output_size(pads.spatial_size(x), self.window, (1, 1), self.padding)
        cell = size if self.grid is None else (self.grid, self.grid)
        return chance.s3(
            random_key(self), x, window=self.window, stride=stride, padding=self.padding, grid=cell
        )


class FractionalMax(nn.Module, kw_only=True):
    """Maximum of regions whose sides are floor or ceil of `ratio` (Graham 2014).

    The regions are random ("random" steps or "pseudo"-random ones), the same for the whole batch;
    in evaluation a fixed sequence. It has neither window nor stride, and sizes floor(H / ratio).
    """

    method: str
    ratio: Annotated[float, Number(above=1)] = math.sqrt(2)
    regions: Annotated[str, OneOf("pseudo", "random")] = "pseudo"
    overlap: bool = True
    window = None
    stride = None
    padding = None
    dense = None

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        del temperature
        x = pads.feature_map(x)
        keys = jax.random.split(random_key(self)) if train else (None, None)
        rows, columns = (
            chance.fractional_bounds(key, n, max(int(n / self.ratio), 1), self.regions == "random")
            for key, n in zip(keys, pads.spatial_size(x), strict=True)
        )
        return chance.fractional_max(rows, columns, x, overlap=self.overlap)

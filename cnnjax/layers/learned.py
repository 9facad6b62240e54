"""Pools with parameters: x (..., H, W, C) -> (..., H', W', C), variables under "params".

    module = Pool("gated", window=2, share="channel")
    module = Pool("lp", window=3, stride=2, p=3.0, learn=True)     # TrainedPool

Each starts as the fixed method it generalises: most as the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import constant, lecun_normal, normal, ones, zeros

from cnnjax.layers.module import Pooling, WindowPooling, refuse_same
from cnnjax.ops import antialias, local, lowpass, means, order, spectral, windows
from cnnjax.ops import padding as pads
from cnnjax.ops.allowed import Number, OneOf
from cnnjax.ops.padding import Padding, Pair

Share = Annotated[str, OneOf("layer", "channel")]
Size = Annotated[int, Number(least=1, most=7, whole=True)]
Count = Annotated[int, Number(least=1, whole=True)]


class TrainedPool(nn.Module, kw_only=True):
    """A function of POOLS whose parameter is trained: one number a layer, kept in its range."""

    method: str
    function: Callable[..., jax.Array]
    parameter: str
    start: float
    least: float
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if math.isfinite(self.least) and self.start <= self.least:
            raise ValueError(
                f"{self.parameter}: expected a number > {self.least:g} to train from, "
                f"got {self.start}"
            )
        super().__post_init__()

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        del train, temperature
        return self._at(pads.feature_map(x), {})

    def dense(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        """Pool at every place."""
        del train, temperature
        refuse_same(self.padding, self.stride)
        return self._at(pads.feature_map(x), {"stride": (1, 1)})

    @nn.compact
    def _at(self, x: jax.Array, other: Mapping[str, Any]) -> jax.Array:
        if math.isfinite(self.least):
            above = self.start - self.least  # the inverse of softplus, without overflow
            raw = self.param("raw", constant(above + math.log(-math.expm1(-above))), ())
            value = self.least + jax.nn.softplus(raw)
        else:
            value = self.param("raw", constant(self.start), ())
        return self.function(x, **{**self.arguments, **other, self.parameter: value})

    @property
    def window(self) -> Pair:
        return self.arguments["window"]

    @property
    def stride(self) -> Pair:
        return self.arguments["stride"]

    @property
    def padding(self) -> Padding:
        return self.arguments["padding"]


class TrainedBlur(Pooling, kw_only=True):
    """`blur` with a trained separable filter: a softmax of taps, so that constants are kept."""

    filter_size: Size = 3
    window = None

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        start = [math.log(tap) for tap in antialias.binomial(self.filter_size)]
        taps = jax.nn.softmax(self.param("taps", lambda key: jnp.asarray(start)))
        kernel = jnp.outer(taps, taps).reshape(-1)
        size = (self.filter_size, self.filter_size)
        return lowpass.filtered(x, kernel, window=size, stride=stride, padding=self.padding)


class LeNetSubsample(WindowPooling, kw_only=True):
    """a_c mean_W x + b_c: the trained subsampling of LeNet-5, before its squashing function."""

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        y = local.mean(x, **self.over(stride))
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        coefficient = self.param("coefficient", ones, (x.shape[-1],))
        bias = self.param("bias", zeros, (x.shape[-1],))
        return (y * coefficient.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


class Tlpf(Pooling, kw_only=True):
    """A trained low-pass filter for each channel (Fonseca et al. 2021), its taps a softmax."""

    filter_size: Size = 3
    window = None

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        taps = antialias.binomial(self.filter_size)
        start = jnp.asarray([math.log(a * b) for a in taps for b in taps])[:, None]
        shape = (self.filter_size**2, x.shape[-1])
        logits = self.param("logits", lambda key: jnp.broadcast_to(start, shape))
        weights = jax.nn.softmax(logits, axis=0)
        size = (self.filter_size, self.filter_size)
        return lowpass.filtered(x, weights, window=size, stride=stride, padding=self.padding)


class Ddac(Pooling, kw_only=True):
    """A low-pass filter predicted at each place for each group of channels (Zou et al. 2020)."""

    filter_size: Size = 3
    groups: Count = 1
    window = None

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        channels, taps = x.shape[-1], self.filter_size**2
        if channels % self.groups:
            raise ValueError(
                f"groups: expected a divisor of the {channels} channels, got {self.groups}"
            )
        size = (self.filter_size, self.filter_size)
        # The statistics are those of the dense map, as published, whatever the stride.
        logits = convolved(self, "kernel", x, taps * self.groups, size, self.padding)
        logits = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(logits)
        logits = _sampled(logits, x, size, stride, self.padding)
        weights = jax.nn.softmax(logits.reshape(*logits.shape[:-1], self.groups, taps), axis=-1)
        return lowpass.adaptive(x, weights, window=size, stride=stride, padding=self.padding)


class Mixed(WindowPooling, kw_only=True):
    """a max + (1 - a) mean with a = sigmoid(logit), started at 1/2 (Lee et al. 2016)."""

    share: Share = "layer"

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        logit = self.param("logit", zeros, (shared(self.share, x),))
        return blend(self, x, stride, logit.reshape((1,) * (x.ndim - 1) + (-1,)))


class Gated(WindowPooling, kw_only=True):
    """As `mixed` with a = sigmoid(w . x_W): the window decides (Lee et al. 2016)."""

    share: Share = "layer"

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        taps = self.window[0] * self.window[1]
        mask = self.param("mask", zeros, (taps, shared(self.share, x)))
        values = windows.values(x, **self.over(stride))
        return blend(self, x, stride, jnp.sum(windows.along(mask, values) * values, axis=0))


class Tree(WindowPooling, kw_only=True):
    """Trained filters at the leaves, blended pairwise by gates up to the root (Lee et al. 2016)."""

    depth: Annotated[int, Number(least=1, most=5, whole=True)] = 2

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        taps, leaves = self.window[0] * self.window[1], 2 ** (self.depth - 1)
        values = windows.values(x, **self.over(stride))
        filters = self.param("filters", _near_mean(taps), (leaves, taps))
        gates = self.param("gates", zeros, (leaves - 1, taps))
        weighed = [jnp.sum(windows.along(row, values) * values, axis=0) for row in filters]
        logits = [jnp.sum(windows.along(row, values) * values, axis=0) for row in gates]
        while len(weighed) > 1:
            pairs = zip(weighed[::2], weighed[1::2], strict=True)
            shares = [jax.nn.sigmoid(logits.pop(0)) for _ in range(len(weighed) // 2)]
            weighed = [s * a + (1 - s) * b for s, (a, b) in zip(shares, pairs, strict=True)]
        return weighed[0].astype(x.dtype)


class Ordinal(WindowPooling, kw_only=True):
    """Weighs each window's values by their rank; the weights are a softmax, started equal."""

    share: Share = "layer"

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        ranked = order.ranks(x, **self.over(stride))
        logits = self.param("logits", zeros, (len(ranked), shared(self.share, x)))
        weights = windows.along(jax.nn.softmax(logits, axis=0), ranked)
        return jnp.sum(weights * ranked, axis=0).astype(x.dtype)


class Lip(WindowPooling, kw_only=True):
    """Mean weighted by exp(G(x)), G = 12 sigmoid(norm(conv x)) trained (Gao et al. 2019)."""

    kernel_size: Size = 3
    coefficient: Annotated[float, Number(above=0)] = 12.0

    @property
    def around(self) -> Padding:
        """How the convolution pads: every place has a logit, also where the pool is VALID."""
        return self.padding if self.padding in ("CIRCULAR", "REFLECT", "EDGE") else "ZEROS"

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        size = (self.kernel_size, self.kernel_size)
        logits = convolved(self, "kernel", x, x.shape[-1], size, self.around, zeros)
        logits = self.coefficient * jax.nn.sigmoid(instance_norm(self, logits))
        values, logits = (windows.values(a, **self.over(stride)) for a in (x, logits))
        return means.softmax_mean(values, logits).astype(x.dtype)


class Dpp(WindowPooling, kw_only=True):
    """Detail-preserving pooling (Saeedan et al. 2018): values far from the local mean weigh more.

    y = sum w x / sum w, w = alpha + rho(x - m)^lambda, rho(d) = sqrt(d^2 + eps^2), or of max(d, 0)
    where not `symmetric`; m is the window's mean ("lite") or a trained filter's answer ("full").
    """

    variant: Annotated[str, OneOf("lite", "full")] = "lite"
    symmetric: bool = True
    eps: Annotated[float, Number(above=0)] = 1e-3

    @nn.compact
    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        values = windows.values(x, **self.over(stride))
        shape = (1,) * (values.ndim - 1) + (-1,)
        alpha, power = (
            jnp.exp(self.param(name, zeros, (x.shape[-1],))).reshape(shape)
            for name in ("log_alpha", "log_lambda")
        )
        level = jnp.mean(values, axis=0, keepdims=True)
        if self.variant == "full":
            taps = (len(values), x.shape[-1])
            weights = self.param("filter", constant(1 / len(values)), taps)
            level = jnp.sum(windows.along(weights, values) * values, axis=0, keepdims=True)
        detail = values - level
        detail = detail if self.symmetric else jax.nn.relu(detail)
        weights = alpha + jnp.sqrt(detail**2 + self.eps**2) ** power
        return (jnp.sum(weights * values, axis=0) / jnp.sum(weights, axis=0)).astype(x.dtype)


class DiffStride(nn.Module, kw_only=True):
    """A trained low-pass, then resampling to a fixed size (Riad et al. 2022).

    Frequency n keeps clip((R + H / (2 S) - |n|) / R, 0, 1) with S trained from `stride` and
    R = `smoothness`. The published output, H / S + 2 R, would change its shape as S is trained;
    here it is that of the first S. With `match_size` it is ceil(H / stride), as every other
    method's, and the ramp of width R lies inside the band that this size can hold.
    """

    method: str
    stride: Pair
    padding: Annotated[str, OneOf("CIRCULAR")] = "CIRCULAR"
    smoothness: Annotated[float, Number(above=0)] = 4.0
    match_size: bool = False
    window = None

    dense = None  # what is sampled depends on the stride that is trained

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        del train, temperature
        x = pads.feature_map(x)
        start = jnp.asarray(self.stride, jnp.float32)
        strides = jnp.maximum(self.param("stride", lambda key: start), 1.0)
        keep, whole = self._sizes(x), pads.spatial_size(x)
        rows, columns = (self._gains(strides[i], whole[i], keep[i]) for i in (0, 1))
        return spectral.resample(x, rows, columns, keep)

    def _sizes(self, x: jax.Array) -> Pair:
        margin = 0 if self.match_size else 2 * math.ceil(self.smoothness)
        height, width = pads.spatial_size(x)
        rows = min(height, -(-height // self.stride[0]) + margin)
        return rows, min(width, -(-width // self.stride[1]) + margin)

    def _gains(self, stride: jax.Array, size: int, keep: int) -> jax.Array:
        frequencies = jnp.arange(size // 2 + 1, dtype=jnp.float32)
        ramp = 0.0 if self.match_size else self.smoothness
        gains = jnp.clip((ramp + size / (2 * stride) - frequencies) / self.smoothness, 0, 1)
        return gains * jnp.where((keep == size) | (2 * frequencies < keep), 1.0, 0.0)


def _sampled(
    dense: jax.Array, x: jax.Array, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    """Take from the dense map of x the places where windows at `stride` lie."""
    whole = pads.spatial_size(x)
    at_1, at_stride = (pads.amounts(whole, window, s, padding) for s in ((1, 1), stride))
    # Only SAME begins elsewhere at another stride.
    first = at_1[0][0] - at_stride[0][0], at_1[1][0] - at_stride[1][0]
    return pads.tap(dense, first, pads.output_size(whole, window, stride, padding), stride)


def convolved(
    module: nn.Module,
    name: str,
    x: jax.Array,
    features: int,
    size: Pair,
    padding: Padding,
    initializer: Any = None,
) -> jax.Array:
    """Convolve at every place with a parameter (kh, kw, C, features) of `module`, no bias.

    Written as taps and one product: the kernel's gradient is then fast inside loops on CPU too.
    """
    kernel = module.param(name, initializer or lecun_normal(), (*size, x.shape[-1], features))
    values = windows.values(x, window=size, stride=(1, 1), padding=padding)
    taps = kernel.reshape(size[0] * size[1], x.shape[-1], features)
    return jnp.einsum("k...c,kcd->...d", values, taps, precision=jax.lax.Precision.HIGHEST)


def instance_norm(module: nn.Module, x: jax.Array, eps: float = 1e-6) -> jax.Array:
    """Normalise each map and channel of x (..., H, W, C); scale and bias belong to `module`.

    flax.linen.InstanceNorm takes every leading axis but the first for a spatial one.
    """
    centred = x - jnp.mean(x, axis=(-3, -2), keepdims=True)
    variance = jnp.mean(centred**2, axis=(-3, -2), keepdims=True)
    shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
    scale = module.param("scale", ones, (x.shape[-1],)).reshape(shape)
    bias = module.param("bias", zeros, (x.shape[-1],)).reshape(shape)
    return centred / jnp.sqrt(variance + eps) * scale + bias


def blend(module: WindowPooling, x: jax.Array, stride: Pair, logit: jax.Array) -> jax.Array:
    """Return a max + (1 - a) mean of the module's windows, a = sigmoid(logit)."""
    share = jax.nn.sigmoid(logit)
    peak, level = local.maximum(x, **module.over(stride)), local.mean(x, **module.over(stride))
    return (share * peak + (1 - share) * level).astype(x.dtype)


def shared(share: str, x: jax.Array) -> int:
    """Return how many parameters a map has: one for the layer or one for each channel."""
    return 1 if share == "layer" else x.shape[-1]


def _near_mean(taps: int) -> Any:
    def initialize(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return 1 / taps + normal(0.1 / taps)(key, shape, dtype)

    return initialize

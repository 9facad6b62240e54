"""LeNet-5 as printed (LeCun et al. 1998, section II.B), and as taught today, -> logits (N, 10).

    net = LeNet5(num_classes=10)
    logits = net.apply(variables, x)         # minus the penalties of the RBF units
    loss = LOSSES["lenet_map"]               # the paper's criterion, eq. 9

    C1 5x5, 6 maps     156 parameters        S2 subsampling    12
    C3 5x5, 16 maps  1,516 (60 connections)  S4 subsampling    32
    C5 5x5, 120     48,120                   F6 full, 84   10,164

Chosen where the paper leaves it open: the trained coefficient of S2 and S4 multiplies the mean of
four inputs, which is their sum with the coefficient divided by four; C1, C3, C5 and F6 squash with
1.7159 tanh(2x/3) and so do S2 and S4; the bitmaps of the output are drawn anew (layers/rbf.py); in
larger images than 32 x 32, F6 sees every place of C5. Smaller ones are centred on 32 x 32 zeros, as
the paper does with MNIST's 28 x 28, unless a padding is chosen. Weights start uniform in
+-2.4 / fan-in.

LeNet5Modern keeps the sizes (C5 as the first full connection: 61,706 parameters on 28 x 28) with
ReLU, max pooling, every connection of C3 and a softmax.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers import table_conv
from cnnjax.layers.activations import ACTIVATIONS
from cnnjax.layers.rbf import HEIGHT, WIDTH, bitmaps, rbf
from cnnjax.layers.table_conv import TableConv
from cnnjax.nets.blocks import Downsampling, Initializer
from cnnjax.nets.card import Network, network
from cnnjax.nets.classifier import Classifier
from cnnjax.nets.cnn import CNN

# Padding shows at odd sizes alone, which 32 x 32 images do not meet.
SUBSAMPLING = Downsampling("lenet_subsample", 2, 2, "ZEROS")
SIDE = 32
PARTIAL = functools.partial(TableConv, table=table_conv.C3)


def uniform_by_fan_in(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
    """Draw weights uniformly from +-2.4 / fan-in (LeCun et al. 1998, section II.B)."""
    bound = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def centred(x: jax.Array) -> jax.Array:
    """Put x (..., H, W, C), where it is smaller, in the middle of SIDE x SIDE zeros."""
    missing = [max(SIDE - n, 0) for n in x.shape[-3:-1]]
    around = [(total // 2, total - total // 2) for total in missing]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*around, (0, 0)])


class LeNet5(Classifier, kw_only=True):
    """Trained subsampling, a connection table, scaled tanh and distances to bitmaps."""

    activation: str = "scaled_tanh"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        centres = bitmaps(self.num_classes)
        squash = ACTIVATIONS[self.activation]
        layer = functools.partial(self.block, train=train, padding="VALID", kernel_init=self.start)
        if self.padding is None:
            x = centred(x)
        x = squash(layer(x, 6, 5, pool=SUBSAMPLING, name="c1"))
        x = squash(layer(x, 16, 5, pool=SUBSAMPLING, convolution=PARTIAL, name="c3"))
        x = self.pool_all(layer(x, 120, 5, name="c5"), train=train)
        x = squash(nn.Dense(WIDTH * HEIGHT, kernel_init=self.weights(self.start), name="f6")(x))
        return -rbf(self.drop(x, 0.0, train=train), centres)

    @property
    def start(self) -> Initializer | None:
        """The published initialiser where the squashing function is the published one."""
        return uniform_by_fan_in if self.activation == "scaled_tanh" else None


class LeNet5Modern(CNN, kw_only=True):
    """Convolution, ReLU, max pool; twice; then 120, 84 and the logits."""

    widths: tuple[int, ...] = (6, 16)
    kernel_size: int | tuple[int, int] = 5
    dense: tuple[int, ...] = (120, 84)
    published_padding: ClassVar[str] = "VALID"

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return super().__call__(centred(x) if self.padding is None else x, train)


CARDS: Mapping[str, Network] = {
    "lenet5": network(
        LeNet5,
        summary="trained subsampling, connection table, scaled tanh, distances to bitmaps",
        source="LeCun et al. 1998, Gradient-based learning applied to document recognition",
        image=(32, 32, 1),
        classes=10,
        parameters=60_000,
        weights="uniform in +-2.4 / fan-in",
        activation="scaled_tanh",
    ),
    "lenet5_modern": network(
        LeNet5Modern,
        summary="LeNet-5's sizes with ReLU, max pooling, full connections and softmax",
        source="LeCun et al. 1998, fig. 2, in the form taught today",
        image=(28, 28, 1),
        classes=10,
        parameters=61_706,
        pooling=Downsampling("max", window=2, stride=2),
        widths=(6, 16),
        kernel_size=5,
        dense=(120, 84),
        last_pool=None,
        dropout=0.0,
    ),
}

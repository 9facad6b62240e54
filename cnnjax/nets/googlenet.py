"""GoogLeNet, Inception v1 (Szegedy et al. 2015): x (N, 224, 224, 3) -> logits (N, 1000).

    net = GoogLeNet(num_classes=1000)                    # 7,005,832 without the auxiliary heads
    net = GoogLeNet(num_classes=1000, wide=3)            # the reference in common use, 6,624,904
    logits, aside = net.apply(variables, x, train=True, mutable=["auxiliary", "batch_stats"], ...)
    total = loss(logits) + AUXILIARY_WEIGHT * sum(loss(a) for a in auxiliary_logits(aside))

In training two auxiliary heads sow their logits into the collection "auxiliary"; in evaluation they
do not run. Batch normalisation (epsilon 0.001) follows every convolution in place of the published
response normalisation and biases, as in the models in common use; --norm=response has the latter
after every convolution. The 3 x 3 maximum inside an inception lowers no resolution: it stays as it
is, whatever the pool of the study. The paper prints no initial weights: they start as He et al.
2015 say.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers.activations import ACTIVATIONS
from cnnjax.layers.norms import has_bias
from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.card import Network, network
from cnnjax.nets.classifier import AUXILIARY, Classifier
from cnnjax.ops import local

STRIDED = Downsampling("decimate", stride=2, padding="ZEROS")
MAX = Downsampling("max", 3, 2, "SAME")
EPSILON = 1e-3
# Table 1: 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, projection of the pool.
INCEPTIONS: dict[str, tuple[int, ...]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARIES = {"4a": 0, "4d": 1}


class GoogLeNet(Classifier, kw_only=True):
    """Nine inceptions; dropout 0.4 before the logits.

    `wide` is the kernel of an inception's third branch (5 as printed), `last_pool` the window of
    the last pool (3 as printed; the reference in common use has 3 x 3 branches and a 2 x 2 pool).
    """

    head: str = "gap"
    norm: str = "batch"
    wide: int = 5
    last_pool: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = self._conv(x, 64, 7, pool=STRIDED, train=train, name="conv1")
        x = self.lower(x, MAX, train=train, name="pool1")
        x = self._conv(x, 64, 1, train=train, name="conv2_reduce")
        x = self._conv(x, 192, 3, pool=MAX, train=train, name="conv2")
        for name in INCEPTIONS:
            x = self._inception(x, name, train)
            if name in AUXILIARIES and (train or self.is_initializing()):
                self._auxiliary(x, AUXILIARIES[name], train)
            if name == "3b":
                x = self.lower(x, MAX, train=train, name="pool3")
            if name == "4e":
                last = Downsampling("max", self.last_pool, 2, "SAME")
                x = self.lower(x, last, train=train, name="pool4")
        return self.classify(x, train=train, dropout=0.4)

    def _conv(self, x: jax.Array, features: int, kernel_size: int, **choices: Any) -> jax.Array:
        use_bias = not has_bias(self.norm)
        return self.block(x, features, kernel_size, use_bias=use_bias, epsilon=EPSILON, **choices)

    def _inception(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        one, reduced3, three, reduced5, five, projection = INCEPTIONS[name]
        conv = functools.partial(self._conv, train=train)
        rule = "ZEROS" if self.padding is None else self.padding
        still = Downsampling("max", 3, 1, rule)
        a = conv(x, one, 1, name=f"inception{name}_1x1")
        b = conv(x, reduced3, 1, name=f"inception{name}_3x3_reduce")
        b = conv(b, three, 3, name=f"inception{name}_3x3")
        c = conv(x, reduced5, 1, name=f"inception{name}_5x5_reduce")
        c = conv(c, five, self.wide, name=f"inception{name}_5x5")
        d, _ = still(x, name=f"inception{name}_pool", train=train)
        d = conv(d, projection, 1, name=f"inception{name}_pool_projection")
        return jnp.concatenate([a, b, c, d], axis=-1)

    def _auxiliary(self, x: jax.Array, index: int, train: bool) -> None:
        # 5/3 mean, 1 x 1 of 128, full connection of 1024, dropout 0.7; small maps in one window.
        window = (min(5, x.shape[-3]), min(5, x.shape[-2]))
        x = local.mean(x, window=window, stride=(3, 3), padding="VALID")
        x = self._conv(x, 128, 1, train=train, name=f"auxiliary{index}_conv")
        hidden = nn.Dense(1024, kernel_init=self.weights(None), name=f"auxiliary{index}_dense")
        x = ACTIVATIONS[self.activation](hidden(x.reshape(len(x), -1)))
        x = self.drop(x, 0.7, train=train)
        logits = nn.Dense(self.num_classes, name=f"auxiliary{index}_logits")(x)
        if not self.is_initializing():
            self.sow(AUXILIARY, f"logits{index}", logits)


PAPER = "Szegedy et al. 2015, Going deeper with convolutions"
CARDS: Mapping[str, Network] = {
    "googlenet": network(
        GoogLeNet,
        summary="nine inceptions as printed, batch normalisation, two auxiliary heads in training",
        source=PAPER,
        parameters=7_005_832,
        head="gap",
        norm="batch",
    ),
    "googlenet_3x3": network(
        functools.partial(GoogLeNet, wide=3, last_pool=2),
        summary="the reference in common use: 3 x 3 where 5 x 5 is printed, the last pool 2/2",
        source=PAPER,
        parameters=6_624_904,
        head="gap",
        norm="batch",
    ),
}

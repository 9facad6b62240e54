"""AlexNet in both forms and ZFNet: x (N, 224, 224, 3) -> logits (N, 1000).

    net = AlexNet(num_classes=1000)                 # one tower, 61,100,840 parameters
    net = AlexNet2012(num_classes=1000)             # two towers, 60,965,224 at 227 x 227
    net = ZFNet(num_classes=1000)                   # 62,357,608

The first full connection sees every place of the last map, so its size follows the image's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from cnnjax.layers.norms import local_response_norm
from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.card import Network, network
from cnnjax.nets.classifier import Classifier

OVERLAPPING = Downsampling("max", 3, 2, "VALID")
COVERING = Downsampling("max", 3, 2, "SAME")
SMALL = nn.initializers.normal(0.01)
ONE = nn.initializers.ones_init()


def strided(stride: int) -> Downsampling:
    """Return what a published convolution of that stride is: decimation directly after it."""
    return Downsampling("decimate", stride=stride, padding="ZEROS")


class AlexNet(Classifier, kw_only=True):
    """The single-tower form (Krizhevsky 2014, One weird trick) with the widths in common use.

    Convolutions 11/4, 5, 3, 3, 3, a 3/2 maximum after the first, second and fifth; dropout 0.5. The
    report prints no initial weights; they start as He et al. 2015 say.
    """

    widths: tuple[int, ...] = (64, 192, 384, 256, 256)
    dense: tuple[int, ...] = (4096, 4096)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        one, two, three, four, five = self.sizes("widths", 5)
        layer = functools.partial(self.block, train=train)
        x = layer(x, one, 11, padding=((2, 2), (2, 2)), pool=strided(4), name="conv1")
        x = self.lower(x, OVERLAPPING, train=train, name="pool1")
        x = layer(x, two, 5, pool=OVERLAPPING, name="conv2")
        x = layer(x, three, 3, name="conv3")
        x = layer(x, four, 3, name="conv4")
        x = layer(x, five, 3, pool=OVERLAPPING, name="conv5")
        return self.classify(x, train=train, dense=self.dense, dropout=0.5)


class AlexNet2012(Classifier, kw_only=True):
    """As printed (Krizhevsky et al. 2012): towers as groups, response normalisation, 227 x 227.

    The paper prints 224 x 224, from which its 55 x 55 maps do not follow; 227 gives them. The
    normalisation runs over the neighbours in both towers. Weights start normal of deviation 0.01,
    the biases of convolutions 2, 4, 5 and of the hidden full connections at 1. Normalisations other
    than the published "response", which follows the first two layers, follow every convolution.
    """

    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    dense: tuple[int, ...] = (4096, 4096)
    norm: str = "response"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        one, two, three, four, five = self.sizes("widths", 5)
        late = "none" if self.norm == "response" else self.norm
        layer = functools.partial(self.block, train=train, kernel_init=SMALL)
        paired = functools.partial(layer, groups=2, bias_init=ONE)
        x = layer(x, one, 11, padding="VALID", pool=strided(4), name="conv1")
        x = self.lower(x, OVERLAPPING, train=train, name="pool1")
        x = paired(x, two, 5, pool=OVERLAPPING, name="conv2")
        x = layer(x, three, 3, norm=late, name="conv3")
        x = paired(x, four, 3, norm=late, name="conv4")
        x = paired(x, five, 3, norm=late, pool=OVERLAPPING, name="conv5")
        return self.classify(
            x, train=train, dense=self.dense, dropout=0.5, kernel_init=SMALL, bias_init=ONE
        )


class ZFNet(Classifier, kw_only=True):
    """As printed (Zeiler and Fergus 2013, fig. 3): convolutions 7/2 and 5/2, maps 110, 26, 13.

    The borders are chosen such that the printed sizes come out: the 7 x 7 kernel pads by one, the
    5 x 5 by none, the first two pools cover the last column, the last does not. Response
    normalisation follows the first two pools. Weights start normal of deviation 0.01.
    """

    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    dense: tuple[int, ...] = (4096, 4096)
    norm: str = "response"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        one, two, three, four, five = self.sizes("widths", 5)
        norm = "none" if self.norm == "response" else self.norm
        layer = functools.partial(self.block, train=train, norm=norm, kernel_init=SMALL)
        x = layer(x, one, 7, padding=((1, 1), (1, 1)), pool=strided(2), name="conv1")
        x = self._contrast(self.lower(x, COVERING, train=train, name="pool1"))
        x = layer(x, two, 5, padding="VALID", pool=strided(2), name="conv2")
        x = self._contrast(self.lower(x, COVERING, train=train, name="pool2"))
        x = layer(x, three, 3, name="conv3")
        x = layer(x, four, 3, name="conv4")
        x = layer(x, five, 3, pool=OVERLAPPING, name="conv5")
        return self.classify(x, train=train, dense=self.dense, dropout=0.5, kernel_init=SMALL)

    def _contrast(self, x: jax.Array) -> jax.Array:
        return local_response_norm(x) if self.norm == "response" else x


def _card(module: Any, **published: Any) -> Network:
    return network(module, widths=module.widths, dense=module.dense, **published)


CARDS: Mapping[str, Network] = {
    "alexnet": _card(
        AlexNet,
        summary="one tower, no normalisation",
        source="Krizhevsky 2014, One weird trick for parallelizing CNNs",
        parameters=61_100_840,
    ),
    "alexnet_2012": _card(
        AlexNet2012,
        summary="two towers as groups, response normalisation",
        source="Krizhevsky et al. 2012, ImageNet classification with deep CNNs",
        image=(227, 227, 3),
        weights="normal of deviation 0.01; biases 1 in conv2, 4, 5 and hidden full connections",
        parameters=60_965_224,
        norm="response",
    ),
    "zfnet": _card(
        ZFNet,
        summary="AlexNet with a 7 x 7 kernel of stride 2 in front",
        source="Zeiler and Fergus 2013, Visualizing and understanding CNNs",
        parameters=62_357_608,
        weights="normal of deviation 0.01",
        norm="response",
    ),
}

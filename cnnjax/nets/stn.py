"""A spatial transformer in front of any network (Jaderberg et al. 2015): x -> net(moved x).

    net = Transformed(net=CNN(num_classes=10), mode="affine")
    net = build_net(Config(net="resnet20_cifar", transformer="affine"), 10, (32, 32, 3))
    net = stn(num_classes=10, mode="translation", pool=Downsampling("mean"), widths=(32, 64))

A small network looks at the image and says where the classifier should look. It starts by saying
"where it is": the last layer's weights are 0 and its bias is the identity, as published. Its own
pools stay 2/2 maxima, for a pose is what pooling would hide; the pool of a study is the
classifier's. Sizes follow the paper's networks for MNIST: two 5 x 5 convolutions of 20, a full
connection of 20; chosen here: zero borders, so that small images pass.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.layers.spatial_transformer import affine_grid, bilinear, translation
from cnnjax.nets.blocks import ConvBlock, Downsampling
from cnnjax.nets.card import Network, network
from cnnjax.nets.cnn import CNN, TEACHING
from cnnjax.ops import padding as pads

IDENTITY = {"affine": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "translation": (0.0, 0.0)}
TRANSFORMERS = ("none", *IDENTITY)
MAX = Downsampling("max", 2, 2, "ZEROS")
WIDTH = 20


class Localisation(nn.Module, kw_only=True):
    """Where to look: images (N, H, W, C) -> affine maps (N, 2, 3)."""

    mode: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for index in range(2):
            block = ConvBlock(WIDTH, 5, padding="ZEROS", pool=MAX, name=f"conv{index}")
            x = block(x, train=train)
        start = jnp.asarray(IDENTITY[self.mode])
        x = nn.relu(nn.Dense(WIDTH, name="dense")(x.reshape(x.shape[0], -1)))
        pose = nn.Dense(
            len(start),
            kernel_init=nn.initializers.zeros_init(),
            bias_init=lambda key, shape, dtype: start.astype(dtype),
            name="pose",
        )(x)
        return pose.reshape(-1, 2, 3) if self.mode == "affine" else translation(pose)


class Transformed(nn.Module, kw_only=True):
    """`net` behind a spatial transformer of `mode` "affine" or "translation"."""

    net: nn.Module
    mode: str = "affine"

    def __post_init__(self) -> None:
        if self.mode not in IDENTITY:
            raise ValueError(f"mode: expected one of {', '.join(IDENTITY)}, got {self.mode!r}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        theta = Localisation(mode=self.mode, name="localisation")(x, train=train)
        moved = bilinear(x, affine_grid(theta, size=pads.spatial_size(x)))
        classifier: Any = self.net
        return classifier(moved, train=train)


def stn(*, mode: str, **choices: Any) -> nn.Module:
    """Return the teaching stack behind a spatial transformer."""
    return Transformed(net=CNN(**choices), mode=mode)


def _card(mode: str, summary: str, parameters: int) -> Network:
    return network(
        functools.partial(stn, mode=mode),
        summary=summary,
        source="Jaderberg et al. 2015, Spatial transformer networks",
        image=(28, 28, 1),
        parameters=parameters,
        **TEACHING,
    )


CARDS: Mapping[str, Network] = {
    "stn": _card("affine", "an affine spatial transformer in front of cnn", 386_520),
    "stn_translation": _card(
        "translation", "a spatial transformer that only translates in front of cnn", 386_436
    ),
}

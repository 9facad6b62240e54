"""The teaching stack and LeNet-5's modern form: x (N, H, W, C) -> logits (N, num_classes).

net = CNN(num_classes=10, widths=(32, 64, 128), pool=Downsampling("max", 2, 2))
variables = net.init(key, x, train=False)
logits = net.apply(variables, x, train=False)
"""

from __future__ import annotations

import flax.linen as nn
import jax

from cnnjax.layers.activations import ACTIVATIONS
from cnnjax.layers.pooling import parse_head
from cnnjax.nets.blocks import ConvBlock, Downsampling


class CNN(nn.Module):
    """n x (convolution, rectifier, pool), head, full connections, logits (Wu 2017)."""

    num_classes: int
    pool: Downsampling
    widths: tuple[int, ...] = (32, 64, 128)
    kernel_size: int = 3
    dense: tuple[int, ...] = (128,)
    padding: str = "SAME"
    head: str = "flatten"
    norm: str = "none"
    activation: str = "relu"
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for index, width in enumerate(self.widths):
            block = ConvBlock(
                width,
                self.kernel_size,
                self.padding,
                self.norm,
                self.activation,
                self.pool,
                name=f"stage{index}",
            )
            x = block(x, train=train)
        head, params = parse_head(self.head)
        x = head.module(name="head", **params)(x, train=train)
        activation = ACTIVATIONS[self.activation]
        for index, width in enumerate(self.dense):
            layer = nn.Dense(width, kernel_init=activation.initializer(), name=f"dense{index}")
            x = activation(layer(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="logits")(x)

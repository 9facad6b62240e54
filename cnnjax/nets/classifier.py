"""Classifier: the choices every network takes, and what every network ends in.

    class Tiny(Classifier, kw_only=True):
        @nn.compact
        def __call__(self, x, train=False):
            x = self.block(x, 16, 3, train=train, name="stage0", pool=Downsampling("max", 2, 2))
            return self.classify(x, train=train)

    logits = Tiny(num_classes=10, head="gap").apply(variables, x)     # (N, H, W, C) -> (N, 10)

None is open: each layer then has what it was published with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from cnnjax.layers.activations import ACTIVATIONS, INITIALIZERS
from cnnjax.layers.pooling import parse_head
from cnnjax.nets.blocks import ZERO, ConvBlock, Downsampling, Initializer
from cnnjax.ops import padding as pads

AUXILIARY = "auxiliary"
AUXILIARY_WEIGHT = 0.3


def auxiliary_logits(collections: Mapping[str, Any]) -> list[jax.Array]:
    """Return the logits (N, num_classes) that auxiliary heads sowed in training, often none.

    A training loss adds AUXILIARY_WEIGHT times the loss of each.
    """
    return jax.tree.leaves(collections.get(AUXILIARY, {}))


class Classifier(nn.Module, kw_only=True):
    """Base of the networks: x (N, H, W, C) -> logits (N, num_classes)."""

    num_classes: int
    pool: Downsampling = Downsampling()
    padding: pads.Padding | None = None
    head: str = "flatten"
    norm: str = "none"
    activation: str = "relu"
    dropout: float | None = None
    initializer: str | None = None

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def weights(self, published: Initializer | None, activation: str | None = None) -> Initializer:
        """Return how weights before the activation start: as chosen, published, or else by He."""
        after = ACTIVATIONS[activation or self.activation]
        if self.initializer is not None:
            return INITIALIZERS[self.initializer](after)
        return published or after.initializer()

    def sizes(self, name: str, count: int) -> tuple[int, ...]:
        """Return the field `name`, a tuple of `count` sizes; ValueError for another length."""
        values = getattr(self, name)
        if len(values) != count:
            raise ValueError(f"{name}: expected {count} of them, one a stage, got {values}")
        return values

    def block(
        self,
        x: jax.Array,
        features: int,
        kernel_size: int | pads.Pair,
        *,
        train: bool,
        name: str,
        padding: pads.Padding = "ZEROS",
        pool: Downsampling | None = None,
        chosen: Downsampling | None = None,
        kernel_init: Initializer | None = None,
        **choices: Any,
    ) -> jax.Array:
        """Apply a ConvBlock; `padding` and `pool` are the published ones, `choices` its fields.

        `chosen` stands at this site instead of the pool that was chosen for all of them.
        """
        block = ConvBlock(
            features,
            kernel_size,
            padding=padding if self.padding is None else self.padding,
            pool=None if pool is None else (chosen or self.pool).at(pool),
            **{"norm": self.norm, "activation": self.activation, **choices},
            kernel_init=self.weights(kernel_init, choices.get("activation")),
            name=name,
        )
        return block(x, train=train)

    def lower(self, x: jax.Array, pool: Downsampling, *, train: bool, name: str) -> jax.Array:
        """Apply the pool of a site without a convolution of its own."""
        return self.pool.at(pool)(x, name=name, train=train)[0]

    def drop(self, x: jax.Array, rate: float, *, train: bool) -> jax.Array:
        """Drop units at the published rate, or at the one that was chosen for all places."""
        chosen = rate if self.dropout is None else self.dropout
        return nn.Dropout(chosen, deterministic=not train)(x)

    def pool_all(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Apply the head: (N, H, W, C) -> (N, F)."""
        head, params = parse_head(self.head)
        return head.module(name="head", **params)(x, train=train)

    def classify(
        self,
        x: jax.Array,
        *,
        train: bool,
        dense: Sequence[int] = (),
        dropout: float = 0.0,
        kernel_init: Initializer | None = None,
        bias_init: Initializer = ZERO,
    ) -> jax.Array:
        """Head, hidden full connections, logits.

        Dropout follows each hidden full connection, or the head where there is none.
        """
        x = self.pool_all(x, train=train)
        activation = ACTIVATIONS[self.activation]
        for index, width in enumerate(dense):
            hidden = nn.Dense(
                width,
                kernel_init=self.weights(kernel_init),
                bias_init=bias_init,
                name=f"dense{index}",
            )
            x = self.drop(activation(hidden(x)), dropout, train=train)
        if not dense:
            x = self.drop(x, dropout, train=train)
        last = self.weights(kernel_init or nn.initializers.lecun_normal(), "identity")
        return nn.Dense(self.num_classes, kernel_init=last, name="logits")(x)

"""ACTIVATIONS: the nonlinearity after a convolution, by name, with the gain its initialiser needs.

    activation = ACTIVATIONS["relu"]
    kernel_init = activation.initializer()
    y = activation(x)                       # x of any shape, channels last -> the same shape

A layer keeps the second moment of its input where Var[w] = gain / fan_in, gain = 1 / E[f(z)^2] for
z ~ N(0, 1). For a rectifier of negative slope a that is 2 / (1 + a^2), the rule of He et al. 2015
(Delving Deep into Rectifiers, eq. 10 and 15), and it keeps every variance. GELU's gain keeps a
variance of 1 alone: what deviates from it, as narrow layers make it, grows by 14 % a layer, for
GELU passes half of a large variance and a quarter of a small one. No gain mends that; a norm does.
INITIALIZERS names the rules by which weights start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.ops.allowed import OneOf

Fan = Literal["fan_in", "fan_out"]
LEAK = 0.01
START = 0.25


def he_gain(slope: float = 0.0) -> float:
    """Return 2 / (1 + slope^2): the gain before a rectifier of that negative slope."""
    return 2.0 / (1.0 + slope**2)


class PReLU(nn.Module):
    """max(x, 0) + a min(x, 0) with trained slopes a, one a layer or one a channel (He et al. 2015).

    x (..., C) -> (..., C); "slope" has shape (1,) or (C,) and starts at 0.25, as published.
    """

    share: Annotated[str, OneOf("layer", "channel")] = "channel"
    start: float = START

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        count = 1 if self.share == "layer" else x.shape[-1]
        slope = self.param("slope", nn.initializers.constant(self.start), (count,))
        slope = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (count,))
        return jnp.where(x >= 0, x, slope * x)


@dataclass(frozen=True)
class Activation:
    """A pointwise function and the variance gain of the layer before it.

    One with parameters creates them in the compact Linen module that calls it.
    """

    function: Callable[[jax.Array], jax.Array]
    gain: float
    summary: str

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x)

    def initializer(self, mode: Fan = "fan_in") -> nn.initializers.Initializer:
        """Return the normal initialiser of variance gain / fan_in, or / fan_out."""
        return nn.initializers.variance_scaling(self.gain, mode, "normal")


def _leaky_relu(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, negative_slope=LEAK)


def _prelu(x: jax.Array) -> jax.Array:
    return PReLU("channel")(x)


def _prelu_shared(x: jax.Array) -> jax.Array:
    return PReLU("layer")(x)


def _scaled_tanh(x: jax.Array) -> jax.Array:
    return 1.7159 * nn.tanh(2.0 / 3.0 * x)


def _identity(x: jax.Array) -> jax.Array:
    return x


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(nn.relu, he_gain(), "max(0, x)"),
    "leaky_relu": Activation(_leaky_relu, he_gain(LEAK), "max(0.01 x, x) (Maas 2013)"),
    "prelu": Activation(_prelu, he_gain(START), "max(a_c x, x), a_c trained (He 2015)"),
    "prelu_shared": Activation(_prelu_shared, he_gain(START), "max(a x, x), a trained (He 2015)"),
    "elu": Activation(nn.elu, 1.5505, "x or exp(x) - 1 (Clevert 2016)"),
    "gelu": Activation(nn.gelu, 2.3519, "x Phi(x), Phi by tanh (Hendrycks 2016)"),
    "tanh": Activation(nn.tanh, 2.5362, "tanh x"),
    "scaled_tanh": Activation(_scaled_tanh, 1.3326, "1.7159 tanh(2x/3) (LeCun 1998)"),
    "identity": Activation(_identity, 1.0, "x: no rectification"),
}

# How weights start, given what follows the layer.
INITIALIZERS: Mapping[str, Callable[[Activation], nn.initializers.Initializer]] = {
    "he": lambda activation: activation.initializer(),  # He et al. 2015, forward form
    "he_fan_out": lambda activation: activation.initializer("fan_out"),  # and backward form
    "xavier": lambda activation: nn.initializers.glorot_uniform(),  # Glorot and Bengio 2010
    "lecun": lambda activation: nn.initializers.lecun_normal(),  # LeCun et al. 1998, 1 / fan_in
}

"""ACTIVATIONS: the nonlinearity after a convolution, by name, with the gain its initialiser needs.

    activation = ACTIVATIONS["relu"]
    kernel_init = activation.initializer()
    y = activation(x)

He et al. 2015 (Delving Deep into Rectifiers, eq. 10 and 15): a layer keeps the variance of its
input when Var[w] = gain / fan_in, gain = 2 / (1 + slope^2) for a rectifier of negative slope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax


@dataclass(frozen=True)
class Activation:
    """A pointwise function and the variance gain of the layer before it."""

    function: Callable[[jax.Array], jax.Array]
    gain: float
    summary: str

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x)

    def initializer(self) -> nn.initializers.Initializer:
        """Return the normal initialiser of variance gain / fan_in."""
        return nn.initializers.variance_scaling(self.gain, "fan_in", "normal")


def _leaky_relu(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, negative_slope=0.01)


def _scaled_tanh(x: jax.Array) -> jax.Array:
    return 1.7159 * nn.tanh(2.0 / 3.0 * x)


def _identity(x: jax.Array) -> jax.Array:
    return x


ACTIVATIONS: Mapping[str, Activation] = {
    "relu": Activation(nn.relu, 2.0, "max(0, x)"),
    "leaky_relu": Activation(_leaky_relu, 2.0 / (1.0 + 0.01**2), "max(0.01 x, x)"),
    "elu": Activation(nn.elu, 1.55, "x or exp(x) - 1 (Clevert 2016)"),
    "gelu": Activation(nn.gelu, 2.0, "x Phi(x) (Hendrycks 2016)"),
    "tanh": Activation(nn.tanh, 1.0, "tanh x"),
    "scaled_tanh": Activation(_scaled_tanh, 1.0, "1.7159 tanh(2x/3) (LeCun 1998)"),
    "identity": Activation(_identity, 1.0, "x: no rectification"),
}

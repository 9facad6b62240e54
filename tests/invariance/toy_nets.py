"""Small nets that the tests of this folder measure: integer weights where arithmetic must be exact.

net = Toy(pools=(spec("max", window=2, stride=2),), head="gmp")
variables = integers(net, image_shape)
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.layers.pooling import Pool


class Toy(nn.Module):
    """Stages of circular 3x3 convolution, ReLU and pool, then a head and a full connection."""

    pools: tuple[Any, ...]
    head: str = "gmp"
    padding: str = "CIRCULAR"
    strided: bool = False
    norm: bool = False
    features: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for method, arguments in self.pools:
            strides = dict(arguments)["stride"] if self.strided else 1
            x = nn.Conv(self.features, (3, 3), strides=strides, padding=self.padding)(x)
            x = nn.BatchNorm(use_running_average=not train)(x) if self.norm else x
            x = nn.relu(x)
            if not self.strided:
                x = Pool(method, **dict(arguments))(x, train=train)
        return nn.Dense(3)(HEADS[self.head](x))


HEADS = {
    "gmp": lambda x: jnp.max(x, axis=(1, 2)),
    "gap": lambda x: jnp.mean(x, axis=(1, 2)),
    "sum": lambda x: jnp.sum(x, axis=(1, 2)),
    "flatten": lambda x: x.reshape(x.shape[0], -1),
}


def spec(method: str, /, **arguments: Any) -> tuple[str, tuple[Any, ...]]:
    return method, tuple(arguments.items())


def trained(net: nn.Module, shape: tuple[int, ...]) -> Any:
    """Variables as a trained net has them: real numbers."""
    keys = {"params": jax.random.key(0), "pool": jax.random.key(1)}
    return net.init(keys, jnp.zeros((1, *shape)), train=False)


def integers(net: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Any:
    """Variables that are small integers."""
    rng = np.random.default_rng(seed)
    variables = trained(net, shape)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.integers(-2, 3, leaf.shape), jnp.float32), variables
    )


def images(shape: tuple[int, ...], count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 8, (count, *shape)).astype(np.float32)

"""Variables for tests without compiling an initialiser: net, shape -> NumPy draws of its shapes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.nets.stn import IDENTITY

# One network of each kind, narrow where it takes widths; the others are these with more layers.
NARROW: dict[str, dict[str, Any]] = {
    "cnn": {"widths": (3, 4, 5), "dense": (6,)},
    "lenet5": {},
    "stn": {"widths": (3, 4), "dense": (6,)},
    "alexnet": {"widths": (4, 4, 6, 6, 4), "dense": (8, 8)},
    "alexnet_2012": {"widths": (4, 4, 6, 6, 4), "dense": (8, 8)},
    "zfnet": {"widths": (4, 4, 6, 6, 4), "dense": (8, 8)},
    "vgg11": {"widths": (4, 4, 5, 5, 6), "dense": (8, 8)},
    "vgg13bn_cifar": {"widths": (4, 4, 5, 5, 6)},
    "resnet18": {"widths": (4, 4, 6, 6)},
    "resnet50": {"widths": (4, 4, 4, 4)},
    "resnet20_cifar": {"widths": (4, 6, 8)},
    "resnet18_cifar": {"widths": (4, 4, 6, 6)},
    "base_cnn_b": {"widths": (4, 6)},
    "all_cnn_c": {"widths": (4, 6)},
    "googlenet": {},
}

# The networks that take the widths of a kind above, as deeper ones or other forms of it.
OF_THE_KIND: dict[str, tuple[str, ...]] = {
    "lenet5": ("lenet5_modern",),
    "stn": ("stn_translation",),
    "vgg11": ("vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    "resnet18": ("resnet34",),
    "resnet50": ("resnet101", "resnet152"),
    "resnet20_cifar": tuple(f"resnet{depth}_cifar" for depth in (32, 44, 56, 110)),
    "base_cnn_b": ("base_cnn_a", "base_cnn_c"),
    "all_cnn_c": (
        *("all_cnn_a", "all_cnn_b", "convpool_cnn_a", "convpool_cnn_b", "convpool_cnn_c"),
        *("strided_cnn_a", "strided_cnn_b", "strided_cnn_c"),
    ),
    "googlenet": ("googlenet_3x3",),
}


def kind(name: str) -> str:
    """Return the network of NARROW that `name` is, or is of the kind of."""
    return next((kind for kind, names in OF_THE_KIND.items() if name in names), name)


def variables(net: Any, image_shape: tuple[int, ...], seed: int = 0) -> Any:
    """Return variables of net for images (H, W, C): kernels of He's deviation, scales around 1."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    tree = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), image)
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if "'pose'" in name:
            # A random pose would look beside the image.
            start = IDENTITY["affine" if leaf.shape[-1] == 6 else "translation"]
            return np.float32(0.01) * noise + np.float32("bias" in name) * np.float32(start)
        if "kernel" in name:
            return noise * np.float32(math.sqrt(2 / math.prod(leaf.shape[:-1])))
        one = any(word in name for word in ("scale", "var", "coefficient"))
        if leaf.dtype != np.float32:
            return np.zeros(leaf.shape, leaf.dtype)
        return np.float32(one) + np.float32(0.1) * np.abs(noise)

    return jax.tree_util.tree_map_with_path(draw, tree)


def images(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    """Return images of independent normal pixels."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

"""Sizes of the maps, layer by layer, against the papers' tables; traced, nothing computed."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnnjax.layers.conv import Conv
from cnnjax.nets import NETS

Map = tuple[int, ...]

# What each layer gives, in order: (H = W, C) after convolutions and after pools that stand alone
# or follow one. A pooled block is named by its convolution's map and then by its pool's.
EXPECTED: dict[str, list[Map]] = {
    "lenet5": [(28, 6), (14, 6), (10, 16), (5, 16), (1, 120)],
    "alexnet": [
        (55, 64),
        (27, 64),
        (27, 192),
        (13, 192),
        (13, 384),
        (13, 256),
        (13, 256),
        (6, 256),
    ],
    "alexnet_2012": [
        (55, 96),
        (27, 96),
        (27, 256),
        (13, 256),
        (13, 384),
        (13, 384),
        (13, 256),
        (6, 256),
    ],
    "zfnet": [(110, 96), (55, 96), (26, 256), (13, 256), (13, 384), (13, 384), (13, 256), (6, 256)],
    "vgg11": [
        *((224, 64), (112, 64), (112, 128), (56, 128), (56, 256), (56, 256), (28, 256)),
        *((28, 512), (28, 512), (14, 512), (14, 512), (14, 512), (7, 512)),
    ],
    "base_cnn_a": [(32, 96), (16, 96), (16, 192), (8, 192), (6, 192), (6, 192), (6, 10)],
    "strided_cnn_a": [(16, 96), (8, 192), (6, 192), (6, 192), (6, 10)],
    "convpool_cnn_b": [
        *((32, 96), (32, 96), (32, 96), (16, 96), (16, 192), (16, 192), (16, 192), (8, 192)),
        *((6, 192), (6, 192), (6, 10)),
    ],
    "all_cnn_c": [
        *((32, 96), (32, 96), (16, 96), (16, 192), (16, 192), (8, 192)),
        *((6, 192), (6, 192), (6, 10)),
    ],
}
# Blocks instead of layers: (H = W, C) after the modules whose names start like this.
BLOCKS: dict[str, dict[str, Map]] = {
    "resnet18": {
        "stem": (112, 64),
        "stem_pool": (56, 64),
        "stage0_block1": (56, 64),
        "stage1_block0/conv0/conv": (28, 128),
        "stage1_block1": (28, 128),
        "stage2_block1": (14, 256),
        "stage3_block1": (7, 512),
    },
    "resnet50": {
        "stem_pool": (56, 64),
        "stage0_block2": (56, 256),
        "stage1_block0/conv0/conv": (56, 128),
        "stage1_block0/conv1/conv": (28, 128),
        "stage1_block3": (28, 512),
        "stage2_block5": (14, 1024),
        "stage3_block2": (7, 2048),
    },
    "resnet20_cifar": {
        "stem": (32, 16),
        "stage0_block2": (32, 16),
        "stage1_block0/conv0/conv": (16, 32),
        "stage1_block2": (16, 32),
        "stage2_block2": (8, 64),
    },
    "resnet18_cifar": {"stem": (32, 64), "stage0_block1": (32, 64), "stage3_block1": (4, 512)},
    "googlenet": {
        "conv1": (112, 64),
        "pool1": (56, 64),
        "conv2": (28, 192),
        "inception3a_5x5": (28, 32),
        "inception3b_3x3": (28, 192),
        "pool3": (14, 480),
        "inception4e_pool_projection": (14, 128),
        "pool4": (7, 832),
        "inception5b_1x1": (7, 384),
    },
}


class Watch:
    """Interceptor: notes the map after every module called, by its path."""

    def __init__(self) -> None:
        self.maps: dict[str, Map] = {}
        self.layers: list[Map] = []
        self.borders: dict[str, Any] = {}

    def __call__(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = call(*args, **kwargs)
        first = y[0] if isinstance(y, tuple) else y
        if context.method_name == "__call__" and getattr(first, "ndim", 0) == 4:
            assert first.shape[1] == first.shape[2]
            shape = (first.shape[1], first.shape[3])
            self.maps["/".join(context.module.path)] = shape
            if isinstance(context.module, Conv) or hasattr(context.module, "dense"):
                self.layers.append(shape)
                self.borders["/".join(context.module.path)] = context.module.padding
        return y


def watch(name: str) -> tuple[Watch, tuple[int, ...]]:
    card, seen = NETS[name], Watch()
    net = card.module(num_classes=card.classes, **card.defaults)
    image = jax.ShapeDtypeStruct((1, *card.image), jnp.float32)

    def run(x: jax.Array) -> Any:
        with nn.intercept_methods(seen):
            return net.init_with_output(jax.random.key(0), x)[0]

    return seen, jax.eval_shape(run, image).shape


@pytest.mark.parametrize("name", EXPECTED)
def test_layers(name: str) -> None:
    seen, logits = watch(name)
    assert seen.layers == EXPECTED[name]
    assert logits == (1, NETS[name].classes)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name: str) -> None:
    seen, logits = watch(name)
    assert {key: seen.maps[key] for key in BLOCKS[name]} == BLOCKS[name]
    assert logits == (1, NETS[name].classes)


def test_depths_are_the_names() -> None:
    """Convolutions and full connections on the longest path, projections aside."""
    for name, depth in [("resnet18", 18), ("resnet50", 50), ("resnet56_cifar", 56), ("vgg16", 16)]:
        card = NETS[name]
        net = card.module(num_classes=card.classes, **card.defaults)
        image = jax.ShapeDtypeStruct((1, *card.image), jnp.float32)
        params = jax.eval_shape(lambda x, net=net: net.init(jax.random.key(0), x), image)["params"]
        paths = [
            jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)
        ]
        assert sum("kernel" in path and "projection" not in path for path in paths) == depth


@pytest.mark.parametrize(
    ("name", "borders"),
    [
        (
            "alexnet",
            {"conv1/conv": ((2, 2), (2, 2)), "pool1": "VALID", "conv2/conv": "ZEROS"},
        ),
        ("alexnet_2012", {"conv1/conv": "VALID", "pool1": "VALID", "conv2/pool": "VALID"}),
        ("zfnet", {"conv1/conv": ((1, 1), (1, 1)), "pool1": "SAME", "conv5/pool": "VALID"}),
        ("lenet5", {"c1/conv": "VALID", "c5/conv": "VALID", "c1/pool": "ZEROS"}),
        ("googlenet", {"conv1/conv": "ZEROS", "pool1": "SAME", "inception3a_pool": "ZEROS"}),
        ("resnet18", {"stem/conv": "ZEROS", "stem_pool": "ZEROS"}),
        ("cnn", {"stage0/conv": "SAME", "stage0/pool": "SAME"}),
    ],
)
def test_published_borders(name: str, borders: dict[str, Any]) -> None:
    """Sizes alone do not tell where a border's odd pixel lies."""
    seen, _ = watch(name)
    assert {key: seen.borders[key] for key in borders} == borders

"""Sizes of the maps, layer by layer, against the papers' tables; traced, nothing computed."""

from __future__ import annotations

from collections.abc import Iterable
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
}


def vgg(counts: tuple[int, ...], side: int = 224) -> list[Map]:
    """Table 1: convolutions keep the map, a 2/2 maximum after each stage halves it."""
    maps: list[Map] = []
    for count, width in zip(counts, (64, 128, 256, 512, 512), strict=True):
        maps += [(side, width)] * count + [(side // 2, width)]
        side //= 2
    return maps


def springenberg(first: int, between: int, *, strided: bool, more: bool) -> list[Map]:
    """Tables 1 and 2: convolutions a stage, a pool or a stride at each end, then 6 x 6."""
    maps: list[Map] = []
    for side, width in ((32, 96), (16, 192)):
        count = first + between + more
        maps += [(side, width)] * (count - strided) + [(side // 2, width)]
    return [*maps, (6, 192), (6, 192), (6, 10)]


def residual(counts: tuple[int, ...], widths: tuple[int, ...], side: int) -> dict[str, Map]:
    """Table 1 and section 4.2: every block's map, halved by the first block of later stages."""
    return {
        f"stage{i}_block{j}": (side >> i, width)
        for i, (count, width) in enumerate(zip(counts, widths, strict=True))
        for j in range(count)
    }


WIDE = (64, 128, 256, 512)
EXPECTED |= {
    "cnn": [(32, 32), (16, 32), (16, 64), (8, 64), (8, 128), (4, 128)],
    "lenet5_modern": [(28, 6), (14, 6), (10, 16), (5, 16)],
    **{f"vgg{n}{bn}": vgg(counts) for bn in ("", "_bn") for n, counts in {
        11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4),
    }.items()},
    "vgg13bn_cifar": vgg((2, 2, 2, 2, 2), 32),
    **{f"{kind}_{model}": springenberg(1, index > 0, strided=strided, more=more)
       for index, model in enumerate("abc")
       for kind, strided, more in (
           ("base_cnn", False, False), ("strided_cnn", True, False),
           ("convpool_cnn", False, True), ("all_cnn", True, True))},
}  # fmt: skip
# Table 1 of GoogLeNet: 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, projection of the pool.
BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_projection")
INCEPTIONS = {
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
GOOGLENET: dict[str, Map] = {
    "conv1": (112, 64),
    "pool1": (56, 64),
    "conv2_reduce": (56, 64),
    "conv2": (28, 192),
    "pool3": (14, 480),
    "pool4": (7, 832),
    **{
        f"inception{name}_{branch}": ({"3": 28, "4": 14, "5": 7}[name[0]], width)
        for name, row in INCEPTIONS.items()
        for branch, width in zip(BRANCHES, row, strict=True)
    },
}
MORE = {
    "googlenet": GOOGLENET,
    "googlenet_3x3": GOOGLENET,
    "resnet18": residual((2, 2, 2, 2), WIDE, 56),
    "resnet34": residual((3, 4, 6, 3), WIDE, 56),
    **{
        name: residual(counts, tuple(4 * width for width in WIDE), 56)
        for name, counts in {
            "resnet50": (3, 4, 6, 3),
            "resnet101": (3, 4, 23, 3),
            "resnet152": (3, 8, 36, 3),
        }.items()
    },
    **{f"resnet{6 * n + 2}_cifar": residual((n,) * 3, (16, 32, 64), 32) for n in (3, 5, 7, 9, 18)},
    "resnet18_cifar": residual((2, 2, 2, 2), WIDE, 32),
}
for known, maps in MORE.items():
    BLOCKS[known] = BLOCKS.get(known, {}) | maps
# Of several depths of a family one is traced each time, the others are slow.
SLOW = (
    *(f"resnet{n}" for n in (34, 101, 152)),
    *(f"resnet{n}_cifar" for n in (32, 44, 56, 110)),
    "googlenet_3x3",
)


def marked(names: Iterable[str]) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in names]


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


@pytest.mark.parametrize("name", marked(EXPECTED))
def test_layers(name: str) -> None:
    seen, logits = watch(name)
    assert seen.layers == EXPECTED[name]
    assert logits == (1, NETS[name].classes)


@pytest.mark.parametrize("name", marked(BLOCKS))
def test_blocks(name: str) -> None:
    seen, logits = watch(name)
    assert {key: seen.maps[key] for key in BLOCKS[name]} == BLOCKS[name]
    assert logits == (1, NETS[name].classes)


def test_every_network_s_maps_are_held_against_something() -> None:
    """A spatial transformer keeps its image's size; what follows is another network."""
    assert {*EXPECTED, *BLOCKS} == {*NETS} - {"stn", "stn_translation"}


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

"""Trained values of every network, layer by layer for LeNet-5: literal figures, traced networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cnnjax.nets import NETS, page
from cnnjax.nets.classifier import AUXILIARY

# Papers, and torchvision where a paper prints no exact figure; none is read off our own code.
PUBLISHED = {
    "lenet5": 156 + 12 + 1516 + 32 + 48_120 + 10_164,
    "lenet5_modern": 156 + 2416 + (25 * 16 + 1) * 120 + 121 * 84 + 85 * 10,
    "alexnet": 61_100_840,
    "alexnet_2012": 60_965_224,
    "zfnet": 62_357_608,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "vgg13bn_cifar": 9_416_010,
    "googlenet": 7_005_832,
    "googlenet_3x3": 6_624_904,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet18_cifar": 11_173_962,
    "all_cnn_c": 1_369_738,
}
# Tables that print rounded figures: name -> (value, unit of the last digit).
ROUNDED = {
    "resnet20_cifar": (0.27e6, 0.01e6),
    "resnet32_cifar": (0.46e6, 0.01e6),
    "resnet44_cifar": (0.66e6, 0.01e6),
    "resnet56_cifar": (0.85e6, 0.01e6),
    "resnet110_cifar": (1.7e6, 0.1e6),
    "all_cnn_c": (1.4e6, 0.1e6),
}


def shapes(name: str) -> dict[str, Any]:
    """Return the shapes of the network's parameters, nothing computed."""
    card = NETS[name]
    net = card.module(num_classes=card.classes, **card.defaults)
    image = jax.ShapeDtypeStruct((1, *card.image), jnp.float32)
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x), image)["params"]


def count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


DEEP = ("resnet101", "resnet152", "resnet110_cifar")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in NETS]
)
def test_parameters(name: str) -> None:
    params = shapes(name)
    found = count({key: value for key, value in params.items() if AUXILIARY not in key})
    assert found == NETS[name].parameters
    assert found == PUBLISHED.get(name, found)
    value, unit = ROUNDED.get(name, (found, 1.0))
    assert abs(found - value) <= unit / 2


def test_every_count_is_held_against_something() -> None:
    unnamed = set(NETS) - set(PUBLISHED) - set(ROUNDED)
    assert unnamed == {
        "cnn",
        "stn",
        "stn_translation",
        *(f"{kind}_cnn_{model}" for kind in ("base", "strided", "convpool") for model in "abc"),
        *(f"all_cnn_{model}" for model in "ab"),
    }


def test_lenet5_layer_by_layer() -> None:
    params = shapes("lenet5")
    layers = [
        params["c1"]["conv"],
        params["c1"]["pool"],
        params["c3"]["conv"],
        params["c3"]["pool"],
        params["c5"],
        params["f6"],
    ]
    assert [count(layer) for layer in layers] == [156, 12, 1516, 32, 48_120, 10_164]
    assert count(params) == 60_000


def test_springenberg_variants_cost_what_they_replace() -> None:
    """Strided- has the base's parameters, All- has ConvPool-'s (table 2)."""
    counts = {name: card.parameters for name, card in NETS.items() if "_cnn_" in name}
    for model in "abc":
        assert counts[f"strided_cnn_{model}"] == counts[f"base_cnn_{model}"]
        assert counts[f"all_cnn_{model}"] == counts[f"convpool_cnn_{model}"]


def test_googlenet_with_its_auxiliary_heads() -> None:
    """torchvision's GoogLeNet with both has 13,004,888 parameters."""
    assert count(shapes("googlenet_3x3")) == 13_004_888


def test_the_page_is_current() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
    assert docs.read_text() == page.page(), "run: python -m cnnjax.nets.page > docs/networks.md"

"""Initial weights: as each paper prints them, and as chosen; by the variance of what is drawn."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from net_numbers import NARROW

from cnnjax.nets import NETS
from cnnjax.nets.stn import IDENTITY


def drawn(name: str, **choices: Any) -> dict[str, np.ndarray]:
    """Return the initial parameters, of widths that tell fan-in and fan-out apart."""
    card = NETS[name]
    wide = {k: tuple(16 * (i + 1) for i in range(len(v))) for k, v in NARROW[name].items()}
    net = card.module(num_classes=10, **(dict(card.defaults) | wide | choices))
    side = 67 if card.image[0] > 200 else 32
    image = jnp.zeros((1, side, side, card.image[2]))
    params = jax.jit(lambda key: net.init(key, image)["params"])(jax.random.key(3))
    return {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}


def fans(kernel: np.ndarray) -> tuple[int, int]:
    """Return fan-in and fan-out: what a unit sums over, and how many units see an input."""
    window = math.prod(kernel.shape[:-2])
    return window * kernel.shape[-2], window * kernel.shape[-1]


# Variance of a kernel from its fans, as printed: Krizhevsky 2012 section 5; Zeiler 2013 section 3;
# Simonyan 2015 section 3.1 (Glorot 2010, eq. 16); He 2016 section 3.4 with He 2015, eq. 14.
PRINTED = {
    "alexnet_2012": lambda into, out: 1e-4,
    "zfnet": lambda into, out: 1e-4,
    "vgg11": lambda into, out: 2 / (into + out),
    "resnet18": lambda into, out: 2 / out,
    "resnet50": lambda into, out: 2 / out,
    "resnet20_cifar": lambda into, out: 2 / out,
    "cnn": lambda into, out: 2 / into,
    "all_cnn_c": lambda into, out: 2 / into,
}
CHOSEN = {
    "he": lambda into, out: 2 / into,
    "he_fan_out": lambda into, out: 2 / out,
    "xavier": lambda into, out: 2 / (into + out),
    "lecun": lambda into, out: 1 / into,
}
LONG = ("resnet50", "resnet18", "alexnet_2012", "zfnet", "vgg11")


def wanted(path: str, kernel: np.ndarray) -> bool:
    """The last layer starts by rules of its own, and so does each map of a connection table."""
    return "logits" not in path and kernel.ndim != 3


def agree(params: dict[str, np.ndarray], variance: Any) -> int:
    """Hold the variance of every large kernel but the last layer's against `variance`."""
    held = 0
    for path, kernel in params.items():
        if path.endswith("kernel") and kernel.size >= 1000 and wanted(path, kernel):
            error = 5 * math.sqrt(2 / kernel.size)
            assert kernel.var() == pytest.approx(variance(*fans(kernel)), rel=error), path
            held += 1
    return held


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long) if n in LONG else n for n in PRINTED]
)
def test_published_variance(name: str) -> None:
    assert agree(drawn(name), PRINTED[name]) >= 2


@pytest.mark.parametrize(
    "initializer", ["he", *(pytest.param(n, marks=pytest.mark.slow) for n in list(CHOSEN)[1:])]
)
def test_chosen_variance(initializer: str) -> None:
    """In a network whose published weights are others; He's rule knows its squashing function."""
    gain = 1.3326 / 2 if initializer.startswith("he") else 1.0
    params = drawn("lenet5", initializer=initializer)
    assert agree(params, lambda into, out: gain * CHOSEN[initializer](into, out)) >= 2


@pytest.mark.parametrize("name", ["zfnet", "resnet20_cifar", "googlenet"])
@pytest.mark.slow
def test_chosen_variance_everywhere(name: str) -> None:
    assert agree(drawn(name, initializer="lecun"), CHOSEN["lecun"]) >= 2


@pytest.mark.slow
def test_biases_of_alexnet() -> None:
    """One in layers 2, 4, 5 and the hidden full connections, zero elsewhere (section 5)."""
    biases = {k.split("/")[0]: v for k, v in drawn("alexnet_2012").items() if k.endswith("bias")}
    ones = {name for name, bias in biases.items() if (bias == 1).all()}
    assert ones == {"conv2", "conv4", "conv5", "dense0", "dense1"}
    assert all((bias == 0).all() for name, bias in biases.items() if name not in ones)


def test_a_transformer_starts_as_the_identity_whatever_is_chosen() -> None:
    params = drawn("stn", initializer="xavier")
    assert (params["localisation/pose/kernel"] == 0).all()
    np.testing.assert_array_equal(params["localisation/pose/bias"], IDENTITY["affine"])


def test_every_card_says_how_its_weights_start() -> None:
    assert all(card.weights for card in NETS.values())
    printed = {name for name, card in NETS.items() if "none printed" not in card.weights}
    families = ("lenet5", "alexnet_2012", "zfnet", "vgg", "resnet")
    assert printed == {
        name for name in NETS if name.startswith(families) and name != "lenet5_modern"
    }

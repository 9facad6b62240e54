"""Nets that are not ours: other arguments, lists, sequences; and those that cannot be judged."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_nets
from toy_nets import Toy, spec

from cnnjax.invariance import battery, layerwise
from cnnjax.invariance.certificate import certify
from cnnjax.invariance.exhaustive import exhaustive
from cnnjax.invariance.logits import InEvaluation, shift_logits

SHAPE = (4, 6, 2)
IMAGES = toy_nets.images(SHAPE)


def conv(features=3, **more):
    return nn.Conv(features, (3, 3), padding="CIRCULAR", **more)


def mean(x):
    return jnp.mean(x, axis=(1, 2))


class Silent(nn.Module):
    """Takes no argument that says whether it trains."""

    @nn.compact
    def __call__(self, x):
        return mean(nn.relu(conv(strides=2)(x)))


class Deterministic(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Dropout(0.5)(nn.relu(conv(strides=2)(x)), deterministic=deterministic)
        return mean(x)


class Listed(nn.Module):
    """A list among the fields, which cannot be hashed."""

    widths: list[int]

    @nn.compact
    def __call__(self, x, training=True):
        for width in self.widths:
            x = nn.BatchNorm(use_running_average=not training)(nn.relu(conv(width)(x)))
        return mean(conv(strides=2)(x))


NETS = [
    pytest.param(Silent(), marks=pytest.mark.slow),
    Deterministic(),
    Listed([2, 3]),
    nn.Sequential([conv(), nn.relu, conv(strides=2), nn.relu, mean]),
]


@pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)
def test_any_linen_net(net: nn.Module) -> None:
    own: dict[str, Any] = {"deterministic": True} if isinstance(net, Deterministic) else {}
    own = {"training": False} if isinstance(net, Listed) else own
    variables = net.init(jax.random.key(0), jnp.asarray(IMAGES), **own)
    found = exhaustive(net, variables, IMAGES)
    assert (found.route, found.distinct) == ("dense", (2, 2)), found.reason
    rolled = shift_logits(InEvaluation(net), IMAGES, variables=variables)
    np.testing.assert_allclose(found.logits, rolled, atol=1e-5)
    certificate = certify(net, variables, SHAPE)
    assert certificate.verdict == "exact on the 2 x 2 lattice"
    assert certificate.audit.first_break is not None
    assert layerwise.downsampling(net, variables, IMAGES)
    assert layerwise.phase_histograms(net, variables, IMAGES) == {}


def test_nets_that_cannot_be_hashed_share_a_compilation_with_themselves_alone() -> None:
    one, other = Listed([2]), Listed([2])
    assert InEvaluation(one) == InEvaluation(one) != InEvaluation(other)
    assert hash(InEvaluation(one)) == hash(InEvaluation(one))
    same = InEvaluation(Toy(())), InEvaluation(Toy(()))
    assert same[0] == same[1] and hash(same[0]) == hash(same[1])


class Two(nn.Module):
    """Gives its logits and something else."""

    @nn.compact
    def __call__(self, x, train=False):
        y = mean(conv()(x))
        return y, y


class Wet(nn.Module):
    """Dropout left on."""

    @nn.compact
    def __call__(self, x, train=False):
        return mean(nn.Dropout(0.5, deterministic=False)(conv()(x)))


class Counting(nn.Module):
    """Batch norm in training mode."""

    @nn.compact
    def __call__(self, x, train=False):
        return mean(nn.BatchNorm(use_running_average=False)(conv()(x)))


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Two(), "got a tuple of 2"),
        (Wet(), "dropout left on"),
        (Counting(), "training mode"),
        (Toy((), head="flatten"), "Dense_0"),
    ],
)
def test_a_net_that_cannot_be_judged_is_one_line(net: nn.Module, words: str) -> None:
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = net.init(keys, jnp.zeros((1, 8, 8, 2)))
    for call in (
        lambda: exhaustive(net, variables, IMAGES),
        lambda: certify(net, variables, SHAPE),
        lambda: battery.battery(net, variables, IMAGES, np.zeros(2, int)),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_an_image_of_one_pixel_has_one_shift() -> None:
    net = Toy((), head="gap")
    x = toy_nets.images((1, 1, 2))
    variables = toy_nets.trained(net, (1, 1, 2))
    assert exhaustive(net, variables, x).logits.shape == (2, 1, 3)
    assert certify(net, variables, (1, 1, 2)).guarantee in ("all", "not proved")
    with pytest.raises(ValueError, match="2 shifts") as caught:
        battery.battery(net, variables, x, np.zeros(2, int))
    assert "\n" not in str(caught.value)


def test_an_image_smaller_than_the_total_stride_is_rolled() -> None:
    net = Toy((spec("max", window=2, stride=2, padding="CIRCULAR"),) * 2)
    x = toy_nets.images((2, 3, 2))
    variables = toy_nets.trained(net, (2, 3, 2))
    found = exhaustive(net, variables, x)
    assert found.route == "loop" and "does not divide" in found.reason
    assert found.logits.shape == (2, 6, 3)
    assert certify(net, variables, (2, 3, 2)).guarantee != "all"


def test_logits_that_are_not_numbers_are_named() -> None:
    net = Toy(())
    variables = jax.tree.map(lambda leaf: leaf * np.nan, toy_nets.trained(net, SHAPE))
    with pytest.raises(ValueError, match="not finite for image 0 at shift"):
        exhaustive(net, variables, IMAGES)


def test_a_bound_on_memory_holds_for_the_dense_pass() -> None:
    net = Toy((spec("max", window=2, stride=2, padding="CIRCULAR"),))
    variables = toy_nets.trained(net, SHAPE)
    with pytest.raises(ValueError, match="memory: the result needs"):
        exhaustive(net, variables, IMAGES, memory=1000)

"""Sites: what a study leaves open is as published; branches and shortcuts share their phase."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import net_numbers
import numpy as np
import pytest
from flax.core import FrozenDict

from cnnjax.nets import NETS
from cnnjax.nets.blocks import ConvBlock, Downsampling
from cnnjax.nets.resnet import ResNet

STRIDED = Downsampling("decimate", stride=2, padding="ZEROS")
MAX = Downsampling("max", 3, 2, "VALID")


@pytest.mark.parametrize(
    ("study", "published", "site"),
    [
        (Downsampling(), MAX, MAX),
        (Downsampling(), STRIDED, Downsampling("decimate", stride=2)),
        (Downsampling("mean"), MAX, Downsampling("mean", 3, 2, "VALID")),
        (Downsampling("mean"), STRIDED, Downsampling("mean", None, 2, "ZEROS")),
        (Downsampling("aps"), MAX, Downsampling("aps", stride=2)),
        (Downsampling("aps", padding="SAME"), MAX, Downsampling("aps", stride=2)),
        (Downsampling(window=2, stride=3), MAX, Downsampling("max", 2, 3, "VALID")),
        (Downsampling(window=2), STRIDED, Downsampling("decimate", stride=2)),
        (Downsampling(padding="EDGE"), MAX, Downsampling("max", 3, 2, "EDGE")),
        (Downsampling("fractional_max", stride=2), MAX, Downsampling("fractional_max")),
        (
            Downsampling("blur", params=FrozenDict(filter_size=5)),
            STRIDED,
            Downsampling("blur", None, 2, "ZEROS", FrozenDict(filter_size=5)),
        ),
    ],
)
def test_sites(study: Downsampling, published: Downsampling, site: Downsampling) -> None:
    assert study.at(published) == site
    assert study.at(published).at(published) == site


def test_explicit_amounts_suit_methods_that_are_bound_to_no_rule() -> None:
    amounts = ((1, 0), (1, 0))
    assert Downsampling("max", padding=amounts).at(MAX).padding == amounts
    assert Downsampling("lps", padding=amounts).at(MAX).padding is None


def test_every_network_takes_the_same_choices() -> None:
    for name, card in NETS.items():
        assert {"padding", "head", "norm", "activation", "dropout"} <= set(card.defaults), name


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", "response"])
@pytest.mark.parametrize("method", ["max", "decimate"])
def test_order_of_a_block(norm: str, method: str) -> None:
    """Response normalisation follows the rectifier, the others precede it: ReLU shows which."""
    block = ConvBlock(6, 3, norm=norm, pool=Downsampling(method, stride=2).at(STRIDED))
    x = net_numbers.images((2, 8, 8, 3))
    variables = net_numbers.variables(block_of(block), (8, 8, 3))
    y = np.asarray(block_of(block).apply(variables, x))
    assert y.shape == (2, 4, 4, 6)
    assert y.min() >= 0


class block_of:
    """A ConvBlock called like a network."""

    def __init__(self, block: ConvBlock) -> None:
        self.block = block

    def init(self, key: Any, x: Any) -> Any:
        return self.block.init(key, x, train=False)

    def apply(self, variables: Any, x: Any) -> Any:
        return self.block.apply(variables, x, train=False)


def small_resnet(method: str, **choices: Any) -> ResNet:
    return ResNet(
        num_classes=3,
        blocks=(1, 1),
        widths=(4, 6),
        stem="small",
        padding="CIRCULAR",
        pool=Downsampling(method, padding="CIRCULAR"),
        **choices,
    )


def drift(net: Any, shape: tuple[int, ...] = (12, 12, 2)) -> float:
    """Return how far the logits move, at most, over all circular shifts of one image."""
    variables = net_numbers.variables(net, shape)
    x = net_numbers.images(shape)
    shifts = [(i, j) for i in range(shape[0]) for j in range(shape[1])]
    moved = np.stack([np.roll(x, shift, (0, 1)) for shift in shifts])
    logits = np.asarray(jax.jit(net.apply)(variables, moved))
    return float(np.ptp(logits, axis=0).max() / np.abs(logits).max())


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize(
    "method",
    ["aps", *(pytest.param(m, marks=pytest.mark.slow) for m in ("lps", "max_aps", "aps_blur"))],
)
def test_shortcuts_follow_their_branch(method: str, shortcut: str) -> None:
    """With one phase for both a residual net is blind to every circular shift."""
    assert drift(small_resnet(method, shortcut=shortcut)) < 1e-5


def test_shortcuts_of_bottlenecks_follow_too() -> None:
    assert drift(small_resnet("aps", bottleneck=True)) < 1e-5


def test_negative_control() -> None:
    assert drift(small_resnet("max")) > 1e-2


def test_a_shortcut_with_a_phase_of_its_own_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(self: Downsampling, x: Any, phase: Any, *, name: str, train: bool) -> Any:
        return self(x, name=name, train=train)[0]

    monkeypatch.setattr(Downsampling, "alike", alone)
    assert drift(small_resnet("aps")) > 1e-3


def test_a_learned_choice_has_its_parameters_once() -> None:
    net = small_resnet("lps")
    params = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), jnp.zeros((1, 8, 8, 2)))
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert any("pool" in name for name in names)
    assert not any("shortcut_pool" in name for name in names)


@pytest.mark.parametrize(("method", "grows"), [("space_to_depth", True), ("max", False)])
def test_padded_shortcuts_give_way_to_a_projection_where_the_pool_widens(
    method: str, grows: bool
) -> None:
    net = small_resnet(method, shortcut="pad")
    params = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), jnp.zeros((1, 8, 8, 2)))
    assert ("projection" in params["params"]["stage1_block0"]) == grows


def test_strided_projection_is_decimation_before_a_projection() -> None:
    """A residual net as published is the one whose strides are decimation after the rectifier."""
    published = ResNet(num_classes=3, blocks=(1, 1), widths=(4, 6), stem="small", norm="none")
    apart = dataclasses.replace(
        published, pool=Downsampling("decimate", position="after_activation")
    )
    variables = net_numbers.variables(published, (9, 8, 2))
    x = net_numbers.images((2, 9, 8, 2))
    y, z = jax.jit(published.apply)(variables, x), jax.jit(apart.apply)(variables, x)
    np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "widths"), [("resnet18", 3), ("vgg11", 4), ("alexnet", 6)])
def test_wrong_count_of_widths(name: str, widths: int) -> None:
    card = NETS[name]
    net = card.module(num_classes=3, **(dict(card.defaults) | {"widths": (4,) * widths}))
    with pytest.raises(ValueError, match=r"^widths: expected \d of them"):
        jax.eval_shape(lambda x: net.init(jax.random.key(0), x), jnp.zeros((1, 64, 64, 3)))

"""Every cell {network x pool x stride x padding} is a trial: it traces, and it trains.

Traced: the loss's gradient for one network of each kind, init and forward pass for all of them
(slow). Computed: train steps of narrow networks at their smallest image (slow, a few of them fast).
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import net_numbers
import numpy as np
import pytest
from net_numbers import NARROW

from cnnjax.build import build_net, downsampling
from cnnjax.config import Config
from cnnjax.nets import NETS, fit
from cnnjax.nets.classifier import AUXILIARY, AUXILIARY_WEIGHT, auxiliary_logits

METHODS = ("max", "mean", "blur", "aps", "lps", "mixed", "stochastic")
ARMS = tuple(itertools.product(METHODS, (2, 3), ("SAME", "CIRCULAR")))
CELLS = tuple(itertools.product(NETS, ARMS))
Arm = tuple[str, int, str]


def build(name: str, arm: Arm, **choices: Any) -> Any:
    """Return the network of a cell as build_net does, without its check of the size."""
    method, stride, padding = arm
    config = Config(net=name, pool=method, stride=stride, padding=padding)
    card = NETS[name]
    given = {"padding": padding, **choices}
    return card.module(num_classes=10, pool=downsampling(config), **(dict(card.defaults) | given))


def side_for(stride: int) -> int:
    """An image that five sites of the stride divide, the most a network has, and stand on."""
    return 4 * stride**5


def keys() -> dict[str, jax.Array]:
    return {"dropout": jax.random.key(1), "pool": jax.random.key(2)}


def objective(net: Any, params: Any, state: Any, x: Any, labels: Any, rngs: Any) -> Any:
    """Mean cross-entropy, auxiliary heads included, and the new running statistics."""
    logits, aside = net.apply(
        {"params": params, **state}, x, train=True, rngs=rngs, mutable=[*state, AUXILIARY]
    )

    def loss(logits: jax.Array) -> jax.Array:
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(logits)), labels])

    total = loss(logits) + AUXILIARY_WEIGHT * sum(map(loss, auxiliary_logits(aside)))
    return total, {name: value for name, value in aside.items() if name != AUXILIARY}


def in_turn(name: str) -> list[Arm]:
    """Every method once, with strides and paddings in turn."""
    start = list(NARROW).index(name)
    return [ARMS[4 * i + (start + i) % 4] for i in range(len(METHODS))]


# Deep networks trace slowly: of these fewer.
FEW = {"googlenet": 1, "resnet50": 1, "resnet18": 2, "resnet18_cifar": 2, "resnet20_cifar": 2}


def fast_arms(name: str) -> list[Arm]:
    """Four methods in turn; all networks together have every one."""
    start = 3 * list(NARROW).index(name)
    turned = [in_turn(name)[(start + i) % len(METHODS)] for i in range(4)]
    return turned[: FEW.get(name, 4)]


def test_fast_arms_have_every_method_stride_and_padding() -> None:
    arms = [arm for name in NARROW for arm in fast_arms(name)]
    assert {frozenset(part) for part in zip(*arms, strict=True)} == {
        frozenset(METHODS),
        frozenset((2, 3)),
        frozenset(("SAME", "CIRCULAR")),
    }


def trace_cells() -> list[Any]:
    quick = ("cnn", "resnet20_cifar", "all_cnn_c")
    cells = [(name, arm) for name in NARROW for arm in fast_arms(name)]
    marks = {True: (), False: (pytest.mark.slow,)}
    return [pytest.param(*cell, marks=marks[cell[0] in quick]) for cell in cells]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arm"), trace_cells())
def test_gradients_trace(name: str, arm: Arm) -> None:
    net = build(name, arm)
    side = side_for(arm[1])
    image = jax.ShapeDtypeStruct((2, side, side, NETS[name].image[2]), jnp.float32)

    def gradient(x: jax.Array) -> tuple[Any, Any]:
        state = dict(net.init(jax.random.key(0), x))
        params = state.pop("params")
        grads, _ = jax.grad(lambda p: objective(net, p, state, x, [0, 1], keys()), has_aux=True)(
            params
        )
        return params, grads

    params, grads = jax.eval_shape(gradient, image)
    assert params == grads


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: "-".join(map(str, arm)))
def test_every_cell_traces(arm: Arm) -> None:
    traced = 0
    for name in NETS:
        net, side = build(name, arm), side_for(arm[1])
        image = jax.ShapeDtypeStruct((2, side, side, NETS[name].image[2]), jnp.float32)
        rngs = keys() | {"params": jax.random.key(0)}
        out = jax.eval_shape(
            lambda x, net=net, rngs=rngs: net.init_with_output(rngs, x, train=True)[0], image
        )
        assert out.shape == (2, 10), name
        traced += 1
    assert traced == len(NETS) == len(CELLS) / len(ARMS)


def train(name: str, arm: Arm) -> None:
    """Two steps of SGD at the smallest image that fits: finite, nothing without gradient."""
    net = build(name, arm, dropout=0.0, **NARROW[name])
    channels = NETS[name].image[2]
    least = fit.smallest(net, channels)
    assert least is not None
    shape = (least, least, channels)
    state = dict(jax.device_put(net_numbers.variables(net, shape)))
    params = state.pop("params")
    x, labels = net_numbers.images((4, *shape)), np.arange(4)

    @jax.jit
    def step(params: Any, state: Any, key: jax.Array) -> Any:
        rngs = {"dropout": key, "pool": key}
        (loss, state), grads = jax.value_and_grad(
            lambda p: objective(net, p, state, x, labels, rngs), has_aux=True
        )(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), state, loss, grads

    for index in range(2):
        key = jax.random.fold_in(jax.random.key(0), index)
        params, state, loss, grads = step(params, state, key)
        assert np.isfinite(loss)
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if not np.isfinite(leaf).all() or not np.any(leaf)
    ]
    assert not still
    assert step._cache_size() == 1  # the second step retraced nothing


LEARNT = ("base_cnn_b", ("lps", 2, "SAME"))
SAMPLE = (("cnn", ("mixed", 3, "CIRCULAR")), LEARNT)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arm"), SAMPLE)
def test_training(name: str, arm: Arm) -> None:
    train(name, arm)


# Where stride 3 at every site needs 243 pixels it is traced, and stride 2 is computed.
FIVE_SITES = ("zfnet", "vgg11", "vgg13bn_cifar", "resnet18", "resnet50", "googlenet")
COMPUTED = {"googlenet": 1, "resnet50": 1, "resnet18": 1}
ALL = ("cnn", "lenet5", "alexnet_2012", "vgg11", "resnet20_cifar", "all_cnn_c")


def slow_cells() -> list[tuple[str, Arm]]:
    """Every network of NARROW, one of each family with every method."""
    cells = []
    for name in NARROW:
        arms = [(m, 2, p) if name in FIVE_SITES else (m, s, p) for m, s, p in in_turn(name)]
        count = len(METHODS) if name in ALL else COMPUTED.get(name, 2)
        cells += [(name, arm) for arm in arms[-count:]]
    return cells


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("name", "arm"), slow_cells())
def test_training_everywhere(name: str, arm: Arm) -> None:
    train(name, arm)


@pytest.mark.parametrize("net", ["vgg11", "resnet18_cifar"])
def test_a_cell_is_built_from_its_config(net: str) -> None:
    """build_net's network is the one that these tests build."""
    config = Config(net=net, pool="blur", stride=2, padding="CIRCULAR", dropout=0.0)
    built = build_net(config, 10, (32, 32, 3))
    assert built == build(net, ("blur", 2, "CIRCULAR"), dropout=0.0)

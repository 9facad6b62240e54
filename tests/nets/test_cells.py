"""Every cell {network x pool x stride x padding} is a trial: it traces, and it trains.

Traced: the loss's gradient for one network of each kind, init and forward pass for all of them.
Computed: two train steps of every cell, narrow and at its smallest image (long: an hour), and of
some cells (slow).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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
    marks = {True: (), False: (pytest.mark.long,)}
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


LEAST: dict[tuple[str, int, str], int] = {}


def least_side(name: str, arm: Arm, net: Any) -> int:
    """fit.smallest, by two traces where the last answer for another method or depth holds here."""
    channels, key = NETS[name].image[2], (net_numbers.kind(name), *arm[1:])

    def fits(side: int) -> bool:
        return fit.fits(net, (side, side, channels))

    known = LEAST.get(key)
    if known is None or not fits(known) or fits(known - 1):
        found = fit.smallest(net, channels)
        assert found is not None
        LEAST[key] = found
    return LEAST[key]


def named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def train(name: str, arm: Arm) -> None:
    """Two steps of SGD at the smallest image that fits: finite, nothing without gradient."""
    net = build(name, arm, dropout=0.0, **NARROW[net_numbers.kind(name)])
    side = least_side(name, arm, net)
    if arm[0] == "mixed" and arm[2] == "CIRCULAR":
        side *= 2  # of a circular map of one pixel the maximum is the mean, whatever their shares
    shape = (side, side, NETS[name].image[2])
    x, labels = net_numbers.images((4, *shape)), np.arange(4)

    @jax.jit
    def step(params: Any, state: Any, key: jax.Array) -> Any:
        rngs = {"dropout": key, "pool": key}
        (loss, state), grads = jax.value_and_grad(
            lambda p: objective(net, p, state, x, labels, rngs), has_aux=True
        )(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), state, loss, grads

    moved: set[str] = set()
    for draw in range(3):  # eight rectifiers in a row may all be silent, though hardly thrice
        state = dict(jax.device_put(net_numbers.variables(net, shape, seed=draw)))
        params = state.pop("params")
        for index in range(2):
            key = jax.random.fold_in(jax.random.key(draw), index)
            params, state, loss, grads = step(params, state, key)
            found = named(grads)
            assert np.isfinite(loss) and all(np.isfinite(leaf).all() for leaf in found.values())
            # In either step: the first may move a transformer off an image of seven pixels.
            moved |= {path for path, leaf in found.items() if np.any(leaf)}
        if moved == named(params).keys():
            break
    assert moved == named(params).keys()
    assert step._cache_size() == 1  # the second step retraced nothing


LEARNT = ("base_cnn_b", ("lps", 2, "SAME"))
SAMPLE = (("cnn", ("mixed", 3, "CIRCULAR")), LEARNT)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arm"), SAMPLE)
def test_training(name: str, arm: Arm) -> None:
    train(name, arm)


@pytest.fixture
def compiled_soon() -> Iterator[None]:
    """Compile without most optimisations, which here would take longer than all the rest."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("compiled_soon")
@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: "-".join(map(str, arm)))
@pytest.mark.parametrize("name", NETS)
def test_every_cell_trains(name: str, arm: Arm) -> None:
    train(name, arm)
    jax.clear_caches()  # a thousand programs are more than the memory holds


@pytest.mark.parametrize("net", ["vgg11", "resnet18_cifar"])
def test_a_cell_is_built_from_its_config(net: str) -> None:
    """build_net's network is the one that these tests build."""
    config = Config(net=net, pool="blur", stride=2, padding="CIRCULAR", dropout=0.0)
    built = build_net(config, 10, (32, 32, 3))
    assert built == build(net, ("blur", 2, "CIRCULAR"), dropout=0.0)

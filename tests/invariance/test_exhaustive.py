"""One dense pass against rolling all H*W times, and the theorems that make it possible."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_nets
from toy_nets import Toy, spec

from cnnjax.invariance.exhaustive import NotDense, exhaustive, exhaustive_logits, plan
from cnnjax.invariance.logits import InEvaluation, shift_logits
from cnnjax.layers.pooling import POOLS, Pool
from cnnjax.ops import shifts

SHAPE = (8, 12, 2)
IMAGES = toy_nets.images(SHAPE)
MAX = spec("max", window=2, stride=2, padding="CIRCULAR")


@functools.partial(jax.jit, static_argnums=0)
def run(net, variables, x):
    return net.apply(variables, x, train=False)


def rolled(net, variables, x=IMAGES):
    """The definition: roll by every offset, row-major, and run."""
    size = x.shape[1:3]
    moved = np.stack([np.roll(x, d, axis=(1, 2)) for d in shifts.all_offsets(size)])
    logits = run(net, variables, moved.reshape(-1, *x.shape[1:]))
    return np.asarray(logits).reshape(size[0] * size[1], len(x), -1).transpose(1, 0, 2)


def test_dense_pass_equals_rolling_bit_for_bit():
    net = Toy((MAX, spec("sum", window=3, stride=(2, 3), padding="CIRCULAR")))
    variables = toy_nets.integers(net, SHAPE)
    result = exhaustive(net, variables, IMAGES)
    assert (result.route, result.distinct) == ("dense", (4, 6))
    np.testing.assert_array_equal(result.logits, rolled(net, variables))
    # The two axes and the two signs are told apart, or this would prove nothing.
    grid = result.logits.reshape(2, 8, 12, 3)
    assert not np.array_equal(grid, grid[:, ::-1]) and not np.array_equal(grid, grid[:, :, ::-1])


def test_strided_convolutions_have_a_dense_form():
    net = Toy((MAX, MAX), head="sum", strided=True)
    variables = toy_nets.integers(net, SHAPE)
    result = exhaustive(net, variables, IMAGES)
    assert result.route == "dense"
    np.testing.assert_array_equal(result.logits, rolled(net, variables))


class Residual(nn.Module):
    """A branch of two strides beside a shortcut of their product."""

    @nn.compact
    def __call__(self, x, train=False):
        y = Pool("max", window=2, stride=2)(nn.Conv(4, (3, 3), padding="CIRCULAR")(x))
        y = nn.Conv(4, (3, 3), strides=2, padding="CIRCULAR")(nn.relu(y))
        x = nn.Conv(4, (1, 1))(Pool("decimate", stride=4)(x))
        return jnp.sum(nn.relu(x + y), axis=(1, 2))


def test_branches_keep_their_phases_together():
    net = Residual()
    variables = toy_nets.integers(net, SHAPE)
    result = exhaustive(net, variables, IMAGES)
    assert (result.route, result.distinct) == ("dense", (4, 4))
    np.testing.assert_array_equal(result.logits, rolled(net, variables))


EVERY_KIND = ("mean", "blur", "aps", "fractional_max")
METHODS = [
    name if name in EVERY_KIND else pytest.param(name, marks=pytest.mark.slow) for name in POOLS
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_rolling(method):
    card = POOLS[method]
    arguments = {"stride": 2, "padding": "CIRCULAR", "window": 3}
    own = {k: v for k, v in arguments.items() if k in card.takes}
    own |= {"method": "softpool", "window": 3} if method == "canonical" else {}
    net = Toy((spec(method, **own),), head="gap", features=2)
    x = toy_nets.images((4, 6, 1))
    variables = toy_nets.trained(net, x.shape[1:])
    result = exhaustive(net, variables, x)
    expected = "dense" if card.has_dense else "loop"
    expected = "one pass" if card.equivariance == "P2" else expected
    assert result.route == expected, result.reason
    np.testing.assert_allclose(result.logits, rolled(net, variables, x), atol=1e-5)


def test_a_dense_stage_before_one_that_selects():
    net = Toy((MAX, spec("aps", stride=2)))
    variables = toy_nets.integers(net, SHAPE)
    result = exhaustive(net, variables, IMAGES)
    assert (result.route, result.distinct) == ("dense", (2, 2))
    np.testing.assert_array_equal(result.logits, rolled(net, variables))


class Functional(nn.Module):
    """Pools behind the interceptor's back."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.max_pool(nn.Conv(4, (3, 3), padding="CIRCULAR")(x), (2, 2), (2, 2))
        return jnp.mean(nn.relu(x), axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Toy((MAX,), head="flatten"), "flatten head"),
        (Toy((MAX,), padding="SAME"), "not circular"),
        (Toy((spec("max", window=3, stride=2),)), "do not tile"),
        (Toy((spec("max", window=2, stride=5, padding="CIRCULAR"),)), "does not divide"),
        (Toy((spec("aps", stride=2), MAX)), "selects its phase"),
        (Functional(), "disagrees"),
    ],
)
def test_whatever_has_no_dense_pass_is_rolled(net, words):
    variables = toy_nets.trained(net, SHAPE)
    result = exhaustive(net, variables, IMAGES)
    assert result.route == "loop" and words in result.reason
    np.testing.assert_allclose(result.logits, rolled(net, variables), atol=1e-5)


class Patches(nn.Module):
    """Windows that tile the map touch no border, whatever the padding is called."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (2, 2), strides=2, padding="VALID")(x))
        x = nn.relu(nn.Conv(4, (2, 3), strides=(2, 3), padding="SAME")(x))
        return jnp.sum(x, axis=(1, 2))


class Tiles(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        x = Pool("max", window=2, stride=2, padding="SAME")(x)
        x = Pool("lenet_subsample", window=2, stride=2, padding="VALID")(x)
        return jnp.sum(x, axis=(1, 2))


class Upwards(nn.Module):
    """Down by four and up by two."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), strides=4, padding="CIRCULAR")(x))
        x = nn.ConvTranspose(4, (3, 3), strides=(2, 2), padding="CIRCULAR")(x)
        return jnp.sum(nn.relu(nn.Conv(4, (3, 3), padding="CIRCULAR")(x)), axis=(1, 2))


@pytest.mark.parametrize(
    ("net", "lattice"), [(Patches(), (4, 6)), (Tiles(), (4, 4)), (Upwards(), (4, 4))]
)
def test_sites_that_touch_no_border_or_enlarge_the_map_run_dense(net, lattice):
    variables = toy_nets.integers(net, SHAPE)
    result = exhaustive(net, variables, IMAGES)
    assert (result.route, result.distinct) == ("dense", lattice), result.reason
    np.testing.assert_array_equal(result.logits, rolled(net, variables))


class Scales(nn.Module):
    """A head that joins maps of two strides, or of two lattices of as many phases."""

    first: tuple[int, int]
    second: tuple[int, int]

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        parts = [
            jnp.mean(Pool("max", window=2, stride=stride, padding="CIRCULAR")(x), axis=(1, 2))
            for stride in (self.first, self.second)
        ]
        return nn.Dense(3)(jnp.concatenate(parts, axis=-1))


class Beside(nn.Module):
    """A plain shortcut beside a sampler that selects its phase."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        short = nn.Conv(4, (1, 1), strides=2, padding="CIRCULAR")(x)
        return jnp.mean(nn.relu(Pool("aps", stride=2)(x) + short), axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Scales((1, 1), (2, 2)), "fit together"),
        (Scales((1, 2), (2, 1)), "rows of logits"),
        (Beside(), "fit together"),
        (Toy((spec("lip", window=2, stride=2, padding="VALID"),)), "'ZEROS' is not circular"),
        (Toy((spec("diffstride", stride=2, smoothness=1.0),)), "no stride-1 form"),
    ],
)
def test_what_does_not_fit_together_is_rolled_and_no_traceback(net, words):
    variables = toy_nets.trained(net, SHAPE)
    with pytest.raises(NotDense, match=words):
        plan(net, variables, IMAGES.shape)
    result = exhaustive(net, variables, IMAGES[:1])
    assert result.route == "loop"
    np.testing.assert_allclose(result.logits, rolled(net, variables, IMAGES[:1]), atol=1e-5)


def test_a_flatten_head_is_refused_before_anything_runs():
    net = Toy((MAX,), head="flatten")
    with pytest.raises(NotDense, match="flatten"):
        plan(net, toy_nets.trained(net, SHAPE), IMAGES.shape)
    small = Toy((spec("max", window=2, stride=2, padding="CIRCULAR"),), head="flatten")
    assert plan(small, toy_nets.trained(small, (2, 2, 1)), (1, 2, 2, 1))[:2] == ((2, 2), False)


def test_equals_shift_logits_and_returns_an_array():
    net = Toy((MAX, MAX))
    variables = toy_nets.trained(net, SHAPE)
    found = exhaustive_logits(net, variables, IMAGES, batch_size=1)
    expected = shift_logits(InEvaluation(net), IMAGES, variables=variables)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (2, 96, 3)


def test_coset_theorem_distinct_logits_are_those_of_the_lattice():
    net = Toy((MAX, MAX), head="sum")
    variables = toy_nets.integers(net, SHAPE)
    grid = rolled(net, variables).reshape(2, 8, 12, 3)
    np.testing.assert_array_equal(grid, np.roll(grid, (4, 0), axis=(1, 2)))
    np.testing.assert_array_equal(grid, np.roll(grid, (0, 4), axis=(1, 2)))
    assert not np.array_equal(grid, np.roll(grid, (2, 0), axis=(1, 2)))


@pytest.mark.parametrize(
    ("last", "lattice"),
    [
        (spec("sum", window=2, stride=2, padding="CIRCULAR"), 2),
        (spec("max_blur", window=2, stride=2, padding="CIRCULAR"), 2),
        (spec("mean", window=3, stride=3, padding="CIRCULAR"), 2),
        (spec("blur", stride=3, filter_size=3, padding="CIRCULAR"), 6),
        (spec("max", window=2, stride=2, padding="CIRCULAR"), 4),
    ],
)
def test_last_stage_theorem(last, lattice):
    """A last filter that vanishes at the aliases takes its stride out of the lattice."""
    net = Toy((MAX, last), head="sum")
    variables = toy_nets.integers(net, (12, 12, 2))
    grid = rolled(net, variables, toy_nets.images((12, 12, 2), 1)).reshape(1, 12, 12, 3)
    dyadic = last[0] != "mean"
    limit = 0 if dyadic else 1e-6 * np.abs(grid).max()
    assert np.abs(grid - np.roll(grid, (lattice, lattice), axis=(1, 2))).max() <= limit
    smaller = {2: 1, 4: 2, 6: 2}[lattice]
    assert np.abs(grid - np.roll(grid, (smaller, 0), axis=(1, 2))).max() > 1


@pytest.mark.parametrize(
    ("shape", "words"),
    [((8, 12, 2), r"N, H, W, C"), ((0, 8, 12, 2), r"none of them 0")],
)
def test_bad_input_is_one_line(shape, words):
    net = Toy((MAX,))
    with pytest.raises(ValueError, match=words):
        exhaustive_logits(net, toy_nets.trained(net, SHAPE), np.zeros(shape))


def test_batch_statistics_are_refused():
    class InTraining(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.BatchNorm(use_running_average=False)(x)
            return jnp.max(nn.Conv(3, (3, 3), padding="CIRCULAR")(x), axis=(1, 2))

    net = InTraining()
    variables = toy_nets.trained(net, SHAPE)
    with pytest.raises(ValueError, match="training mode"):
        exhaustive(net, variables, IMAGES)

"""Probes of absolute location: their data, and what a circular net cannot see in it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_nets
from toy_nets import Toy, spec

from cnnjax.invariance import battery, probes
from cnnjax.invariance.logits import InEvaluation
from experiments.red_green import Reader

MAX = spec("max", window=3, stride=2, padding="CIRCULAR")


def order(x):
    """Which colour stands left, read off the pixels."""
    column = [[np.argwhere(image[..., c])[:, 1].min() for c in (0, 1)] for image in x]
    return np.argmin(column, axis=1)


def test_the_class_is_the_order_and_the_place_goes_with_it():
    x, y = probes.red_green("train", 50)
    np.testing.assert_array_equal(order(x), y)
    rows = np.array([np.argwhere(image.any(-1))[:, 0] for image in x])
    assert ((rows // 16).min(1) == y).all() and ((rows // 16).max(1) == y).all()
    assert (x.sum(axis=(1, 2, 3)) == 32).all()
    moved = probes.dissimilar(x)
    np.testing.assert_array_equal(order(moved), y)
    np.testing.assert_array_equal(moved[:, :16], x[:, 16:])


def test_splits_are_independent_unless_the_leak_is_asked_for():
    train, test = (probes.red_green(split, 40)[0] for split in ("train", "test"))
    assert not (train == test).all(axis=(1, 2, 3)).any()
    leaked = [probes.red_green(split, n, leak=True)[0] for split, n in (("train", 40), ("test", 9))]
    np.testing.assert_array_equal(leaked[0][:9], leaked[1])
    with pytest.raises(ValueError, match="split"):
        probes.red_green("dev", 4)


@pytest.mark.parametrize(("head", "limit"), [("gmp", 0.0), ("gap", 1e-6)])
def test_circular_nets_cannot_tell_similar_from_dissimilar(head, limit):
    """Total stride 8 divides the 16 rows between the two sets; true at any weights."""
    net = Toy((MAX, MAX, MAX), head=head)
    x, _ = probes.red_green("test", 40)
    variables = toy_nets.trained(net, x.shape[1:])
    call = InEvaluation(net)
    difference = call(variables, x) - call(variables, probes.dissimilar(x))
    assert np.abs(difference).max() <= limit
    zeros = InEvaluation(Toy((MAX, MAX, MAX), head=head, padding="SAME"))
    moved = zeros(variables, probes.dissimilar(x))
    assert np.abs(zeros(variables, x) - moved).max() > 1e-4


@pytest.mark.slow
def test_full_borders_cannot_tell_them_apart_either_unless_a_bias_fills_the_ring():
    """The maps are those of the endless plane, and 8 divides the 16 rows; true at any weights."""
    x, _ = probes.red_green("test", 40)

    def difference(border, bias):
        net = Reader(border, bias)
        variables = toy_nets.trained(net, x.shape[1:])
        variables = jax.tree.map(lambda leaf: leaf + 0.1 * (leaf.ndim == 1), variables)
        call = jax.jit(InEvaluation(net))
        similar, other = call(variables, x), call(variables, probes.dissimilar(x))
        return float(np.abs(similar - other).max() / np.abs(similar).max())

    assert difference("FULL", bias=False) <= 1e-6
    assert difference("FULL", bias=True) > 1e-4
    assert difference("ZEROS", bias=False) > 1e-4


@pytest.mark.slow
def test_valid_convolutions_read_the_place_and_circular_and_full_ones_do_not():
    valid = probes.red_green_probe(Reader("VALID"), epochs=4)
    assert valid["similar"] > 0.99 and valid["dissimilar"] < 0.01
    zeros = probes.red_green_probe(Reader("ZEROS"), epochs=4)
    assert zeros["similar"] > 0.99 and zeros["dissimilar"] < 0.5
    for border in ("CIRCULAR", "FULL"):
        found = probes.red_green_probe(Reader(border), epochs=2, train=500)
        assert found["similar"] == found["dissimilar"]


def corner(x):
    """Sees the canvas's first pixels only: class 1 where anything is lit there."""
    lit = jnp.sum(x[:, :2, :2], axis=(1, 2, 3))
    return jnp.stack([jnp.full_like(lit, 0.5), lit], axis=-1)


def test_one_location_and_border_flips():
    x = np.ones((4, 4, 4, 1), np.float32)
    offsets, right = probes.one_location(corner, x, np.zeros(4, int), margin=3)
    assert len(offsets) == 49
    lit = (offsets <= -2).all(axis=1)
    np.testing.assert_array_equal(right, np.where(lit, 0.0, 1.0))
    distance, flips = probes.border_flips(corner, x, margin=3)
    assert distance.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(flips, [3 / 24, 1 / 16, 0, 0])


def test_battery_is_one_flat_row_of_numbers():
    shape = (8, 8, 1)
    net = Toy((MAX,), head="gap")
    x, y = toy_nets.images(shape, 6), np.arange(6) % 3
    variables = toy_nets.trained(net, shape)
    cheap = battery.battery(net, variables, x, y)
    full = battery.battery(net, variables, x, y, level="full", radius=1)
    assert cheap["circular_distinct"] == 4.0
    assert cheap["circular_consistency_low"] <= cheap["circular_consistency"]
    assert set(cheap) < set(full) and "zeros1_fidelity" in full and "site0_aliasing" in full
    assert all(isinstance(value, float) for value in full.values())
    with pytest.raises(ValueError, match="level"):
        battery.battery(net, variables, x, y, level="fast")

"""Layer-by-layer measures on nets whose answers are known."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
import toy_nets
from toy_nets import Toy, spec

from cnnjax.invariance import layerwise

SHAPE = (8, 8, 1)
MAX = spec("max", window=2, stride=2, padding="CIRCULAR")
IMAGES = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
NET = Toy((MAX,), head="gap")
VARIABLES = toy_nets.trained(NET, SHAPE)


def test_maps_come_in_the_order_of_the_calls():
    maps = layerwise.feature_maps(NET, VARIABLES, IMAGES)
    assert list(maps) == ["Conv_0", "FixedPool_0"]
    assert maps["FixedPool_0"].shape == (3, 4, 4, 4)


def test_errors_vanish_on_the_lattice_and_start_at_the_pool_off_it():
    on = layerwise.equivariance_errors(NET, VARIABLES, IMAGES, (2, -4))
    assert on == {"Conv_0": 0.0, "FixedPool_0": 0.0}
    off = layerwise.equivariance_errors(NET, VARIABLES, IMAGES, (1, 0))
    assert off["Conv_0"] == 0.0 and off["FixedPool_0"] > 0.05
    zeros = layerwise.equivariance_errors(NET, VARIABLES, IMAGES, (2, 0), "zeros")
    assert zeros["Conv_0"] > 0.01


def test_convolution_moves_with_fractions_too():
    smooth = np.cos(2 * np.pi * np.arange(8) / 8).astype(np.float32)[None, :, None, None]
    x = np.broadcast_to(smooth, (1, *SHAPE))
    errors = layerwise.equivariance_errors(NET, VARIABLES, x, (0.5, 0.0), "fourier")
    assert errors["Conv_0"] < 1e-5


@pytest.mark.parametrize(
    ("net", "broken"),
    [
        (NET, "FixedPool_0"),
        (Toy((spec("aps", stride=2),), head="gap"), None),
        (Toy((MAX,), head="gap", padding="SAME"), "Conv_0"),
    ],
)
def test_first_layer_that_does_not_move(net, broken):
    assert layerwise.first_break(net, toy_nets.trained(net, SHAPE), IMAGES) == broken


class Bare(nn.Module):
    """A sampler and nothing else."""

    method: str

    @nn.compact
    def __call__(self, x, train=False):
        x = toy_nets.Pool(self.method, stride=2, name="pool")(x)
        return jnp.mean(x, axis=(1, 2))


def test_aliasing_is_the_share_of_energy_past_the_new_nyquist():
    place = np.arange(8)
    low, high = np.cos(2 * np.pi * place / 8), np.cos(2 * np.pi * 3 * place / 8)
    x = np.broadcast_to((low + 2 * high)[None, :, None, None], (1, 8, 8, 1)).astype(np.float32)
    found = layerwise.downsampling(Bare("decimate"), {}, x)["pool"]
    assert found["aliasing"] == pytest.approx(0.8)
    assert found["gain"] == pytest.approx(np.sqrt(9 / 5))
    assert layerwise.aliasing_ratio(x, (1, 2)) == 0.0


def test_phases_and_ties_are_counted():
    x = np.zeros((3, 8, 8, 1), np.float32)
    x[0, 1, 0], x[1, 0, 1], x[2, 2, 2], x[2, 3, 3] = 1, 1, 1, 1
    histogram = layerwise.phase_histograms(Bare("aps"), {}, x)["pool"]
    assert histogram.sum() == 3 and histogram[1] >= 1 and histogram[2] >= 1
    assert len(histogram) == 4, "phases that were never chosen are counted too"
    assert layerwise.tie_count(Bare("aps"), {}, x) == 1


def test_goodfellow_rewards_what_fires_on_every_shift():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            constant = nn.Conv(1, (1, 1), name="local")(x)
            pooled = Everywhere(name="global")(x)
            return jnp.mean(constant + pooled, axis=(1, 2))

    class Everywhere(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * 0 + jnp.mean(x, axis=(1, 2), keepdims=True)

    net = Two()
    x = np.random.default_rng(0).normal(size=(50, 4, 4, 1)).astype(np.float32)
    variables = toy_nets.trained(net, (4, 4, 1))
    scores = layerwise.goodfellow_scores(net, variables, x, [(1, 0), (2, 3)], rate=0.1)
    assert scores["global"] == pytest.approx(10.0)
    assert scores["local"] < 6


def test_receptive_field_is_the_kernel():
    field = layerwise.receptive_field(NET, VARIABLES, IMAGES, "Conv_0")
    assert field.shape == (8, 8) and field.sum() == pytest.approx(1.0)
    assert (np.argwhere(field > 0).min(0) == 3).all() and (field > 0).sum() == 9
    with pytest.raises(ValueError, match="choose from"):
        layerwise.receptive_field(NET, VARIABLES, IMAGES, "Conv_9")

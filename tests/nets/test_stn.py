"""Spatial transformers: the sampler against scipy, the pose at the start, what moves."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import net_numbers
import numpy as np
import pytest
from net_numbers import NARROW
from scipy import ndimage

from cnnjax.build import build_net
from cnnjax.config import Config
from cnnjax.layers.spatial_transformer import affine_grid, bilinear, translation
from cnnjax.nets import NETS
from cnnjax.nets.cnn import CNN
from cnnjax.nets.stn import stn

QUICK = ("cnn", "lenet5", "resnet20_cifar")
SMALL = {"num_classes": 3, "widths": (2,), "dense": (), "head": "gap"}


def pixels(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Places from -1 to 1 as pixel coordinates."""
    return (grid + 1) / 2 * (np.array(size) - 1)


@pytest.mark.parametrize("size", [(7, 7), (5, 9)])
def test_bilinear_is_scipy(size: tuple[int, int]) -> None:
    """Inside, on and beyond the border, where scipy too interpolates towards zero."""
    x = net_numbers.images((3, *size, 2))
    grid = np.random.default_rng(0).uniform(-1.4, 1.4, (3, 6, 4, 2)).astype(np.float32)
    y = np.asarray(jax.jit(bilinear)(x, grid))
    for n in range(3):
        places = np.moveaxis(pixels(grid[n].astype(np.float64), size), -1, 0)
        for c in range(2):
            expected = ndimage.map_coordinates(
                x[n, ..., c].astype(np.float64), places, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(y[n, ..., c], expected, atol=2e-5)


@pytest.mark.parametrize("seed", range(2))
def test_affine_is_scipy(seed: int) -> None:
    size = (9, 9)
    theta = np.random.default_rng(seed).uniform(-0.9, 0.9, (2, 3))
    x = net_numbers.images((1, *size, 1), seed)
    look = jax.jit(lambda x, theta: bilinear(x, affine_grid(theta, size=size)))
    moved = look(x, jnp.asarray(theta[None], jnp.float32))
    centre = (np.array(size) - 1) / 2
    offset = centre + theta[:, 2] * centre - theta[:, :2] @ centre
    expected = ndimage.affine_transform(
        x[0, ..., 0].astype(np.float64), theta[:, :2], offset, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(np.asarray(moved)[0, ..., 0], expected, atol=2e-5)


def test_gradients_agree_with_finite_differences() -> None:
    x = jnp.asarray(net_numbers.images((1, 5, 5, 1)))
    # Away from pixel centres, where the derivative with respect to the place jumps.
    grid = jnp.asarray([[[[0.13, -0.31], [0.62, 0.88]]]])
    direction = jnp.asarray([[[[1.0, -0.5], [0.25, 2.0]]]])

    @jax.jit
    def total(x: jax.Array, grid: jax.Array) -> jax.Array:
        return jnp.sum(bilinear(x, grid) ** 2)

    step = 1e-2
    by_grid = (total(x, grid + step * direction) - total(x, grid - step * direction)) / (2 * step)
    by_image = (total(x * (1 + step), grid) - total(x * (1 - step), grid)) / (2 * step)
    dx, dgrid = jax.jit(jax.grad(total, (0, 1)))(x, grid)
    np.testing.assert_allclose(jnp.sum(dgrid * direction), by_grid, rtol=1e-2)
    np.testing.assert_allclose(jnp.sum(dx * x), by_image, rtol=1e-3)


@pytest.mark.parametrize("mode", ["affine", "translation"])
def test_at_the_start_it_changes_nothing(mode: str) -> None:
    net, plain = stn(mode=mode, **SMALL), CNN(**SMALL)
    x = net_numbers.images((2, 12, 12, 1))
    variables = net_numbers.variables(net, x.shape[1:])
    # Only what is asked for is compiled: the real start of the last layer.
    start = jax.jit(lambda key: net.init(key, x)["params"]["localisation"]["pose"])
    variables["params"]["localisation"]["pose"] = start(jax.random.key(0))
    alone = {"params": variables["params"]["net"]}
    np.testing.assert_allclose(
        jax.jit(net.apply)(variables, x), jax.jit(plain.apply)(alone, x), atol=1e-5
    )


def test_translation_only_translates() -> None:
    x = net_numbers.images((2, 9, 9, 1))
    # Two pixels down and one to the left, in units of half the image.
    theta = translation(jnp.asarray([[2 / 4, -1 / 4]] * 2))
    moved = np.asarray(jax.jit(lambda x, t: bilinear(x, affine_grid(t, size=(9, 9))))(x, theta))
    np.testing.assert_allclose(moved[:, :7, 1:], x[:, 2:, :8], atol=1e-5)
    assert (moved[:, 7:] == 0).all()
    assert (moved[:, :, :1] == 0).all()


@pytest.mark.parametrize("mode", ["affine", "translation"])
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NARROW]
)
def test_in_front_of_any_network(name: str, mode: str) -> None:
    """By a knob of Config: the network's own parameters stay, those of the pose come."""
    config = Config(net=name, transformer=mode, padding="CIRCULAR", **NARROW[name])
    shape = (243, 243, NETS[name].image[2]) if name == "zfnet" else (64, 64, NETS[name].image[2])
    trees = []
    for arm in (config, dataclasses.replace(config, transformer="none")):
        net = build_net(arm, 4, shape)
        image = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        out, tree = jax.eval_shape(
            lambda x, net=net: net.init_with_output(jax.random.key(0), x), image
        )
        assert out.shape == (2, 4)
        trees.append(tree["params"])
    behind, alone = trees
    assert behind["net"] == alone
    pose = {"affine": 6, "translation": 2}[mode]
    assert behind["localisation"]["pose"]["kernel"].shape == (20, pose)


def test_a_transformed_network_starts_as_the_network() -> None:
    config = Config(transformer="affine", widths=(2,), dense=(), head="gap")
    net, plain = (
        build_net(c, 3, (12, 12, 1))
        for c in (config, dataclasses.replace(config, transformer="none"))
    )
    assert (config.transformer, Config().transformer) == ("affine", "none")
    x = net_numbers.images((2, 12, 12, 1))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    alone = {"params": variables["params"]["net"]}
    np.testing.assert_allclose(
        jax.jit(net.apply)(variables, x), jax.jit(plain.apply)(alone, x), atol=1e-5
    )


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="mode: expected one of affine, translation, got 'rigid'"):
        stn(mode="rigid", **SMALL)

"""What is read of a net as a whole, against what it does to images that go on beyond the border."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_nets import Toy, spec

from cnnjax.invariance import structure
from cnnjax.layers.pooling import POOLS, Pool
from cnnjax.nets import NETS
from cnnjax.nets.anatomy import anatomy

SHAPE = (8, 12, 2)
MAX = spec("max", window=2, stride=2, padding="CIRCULAR")


def read(net: nn.Module, shape: tuple[int, ...]) -> structure.Structure:
    image = jnp.zeros((1, *shape))
    keys = {"params": jax.random.key(0), "pool": jax.random.key(1)}
    variables = jax.eval_shape(lambda x: net.init(keys, x, train=False), image)
    return structure.read(net, variables, shape)


def test_sites_are_in_order() -> None:
    plan = read(Toy((MAX, spec("aps", stride=(1, 2))), head="flatten"), SHAPE)
    assert [site.kind for site in plan.sites] == ["convolution", "max", "convolution", "aps"]
    assert plan.stride == (2, 4) and plan.last == (4, 3, 4) and plan.head == "flatten"


class Positive(nn.Module):
    """Layers, each a function of the map, without biases and with weights that cancel nothing."""

    layers: tuple[Callable[[Any], Any], ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return jnp.mean(x, axis=(1, 2))


def conv(side: int, padding: Any = "SAME", stride: int = 1, dilation: int = 1) -> Any:
    return lambda x: nn.Conv(
        1, (side, side), strides=stride, padding=padding, kernel_dilation=dilation,
        kernel_init=nn.initializers.ones, use_bias=False,
    )(x)  # fmt: skip


def grow(side: int, padding: str = "SAME", stride: int = 2) -> Any:
    return lambda x: nn.ConvTranspose(
        1, (side, side), strides=(stride, stride), padding=padding,
        kernel_init=nn.initializers.ones, use_bias=False,
    )(x)  # fmt: skip


def mean(window: int, stride: int, padding: str = "SAME") -> Any:
    return lambda x: Pool("mean", window=window, stride=stride, padding=padding)(x)


def thin(x: jax.Array) -> jax.Array:
    """Decimate by two between modules."""
    return x[:, ::2, ::2]


def framed(x: jax.Array) -> jax.Array:
    """A border of zeros that no module makes."""
    return jnp.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))


def branched(x: jax.Array) -> jax.Array:
    """The narrower branch comes last."""
    return conv(7)(x) + conv(3)(x)


NETS_OF_LAYERS = {
    "one convolution": (conv(3),),
    "dilated": (conv(3, dilation=3),),
    "even kernel": (conv(4), conv(2)),
    "strided": (conv(3), mean(2, 2), conv(5), mean(3, 2), conv(3)),
    "strided convolutions": (conv(5, stride=2), conv(3, stride=2)),
    "inside alone": (mean(2, 2, "VALID"), mean(2, 2, "VALID")),
    "between modules": (conv(3), thin, conv(3), thin, conv(3)),
    "branches": (conv(3), branched),
    "frame": (framed, conv(3, "VALID"), conv(3, "VALID"), mean(2, 2), mean(2, 2)),
    "larger": (conv(3), grow(4), conv(3)),
    "larger by 3, smaller by 2": (grow(3, stride=3), conv(3), mean(2, 2)),
}


@pytest.mark.parametrize("name", NETS_OF_LAYERS)
def test_touched_cells_are_those_that_the_world_beyond_the_border_changes(name: str) -> None:
    """A definition instead of a trace: put something where the padding was, and see what moves."""
    net, size, around = Positive(NETS_OF_LAYERS[name]), (48, 72), 24
    plan = read(net, (*size, 1))
    world = np.random.default_rng(0).uniform(1, 2, (1, size[0] + 48, size[1] + 48, 1))
    world = world.astype(np.float32)
    alone = last_map(net, world[:, around:-around, around:-around])[0, ..., 0]
    down, across = (int(around / stride) for stride in plan.stride)
    among = last_map(net, world)[0, down:, across:, 0][: alone.shape[0], : alone.shape[1]]
    moved = ~np.isclose(alone, among, rtol=1e-4, atol=0)
    (top, bottom), (left, right) = plan.touched
    assert not moved[top : len(moved) - bottom, left : moved.shape[1] - right].any()
    # Behind a transposed convolution the fields are known to within a pixel.
    spare = 1 if name.startswith("larger") else 0
    for ends, all_moved in ((plan.touched[0], moved.all(axis=1)), (plan.touched[1], moved.all(0))):
        assert sum(ends) - 2 * spare <= all_moved.sum() <= sum(ends)
    sides = zip(plan.touched, plan.stride, strict=True)
    assert plan.margin == np.ceil(max(max(ends) * stride for ends, stride in sides))


def last_map(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return the map that the mean at the end of a Positive takes."""
    layers = net.layers

    class Body(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in layers:
                x = layer(x)
            return x

    return np.asarray(Body().init_with_output(jax.random.key(0), x)[0])


STRIDING = [m for m in POOLS if "stride" in POOLS[m].takes and m not in ("canonical", "haar")]


@pytest.mark.parametrize("method", STRIDING)
def test_every_pool_has_its_stride(method: str) -> None:
    """Along both axes, and those that mix a map in no regular way as well."""
    own: dict[str, Any] = {"window": 3} if "window" in POOLS[method].takes else {}
    plan = read(Toy(((method, tuple({"stride": (2, 3), **own}.items())),)), (12, 12, 1))
    assert plan.stride == (2, 3)


DEEP = ("lenet5", "alexnet_2012", "zfnet", "vgg16", "googlenet", "resnet50", "convpool_cnn_b")
QUICK = ("cnn", "all_cnn_c", "resnet20_cifar")


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in DEEP)])
def test_a_certificates_stride_is_the_networks_table_s(name: str) -> None:
    """Of the map that the head makes a vector of, which `cnnjax train --cost` prints."""
    card = NETS[name]
    net = card.module(num_classes=10, **card.defaults)
    last = anatomy(net, card.image).last_map
    assert last is not None
    plan = read(net, card.image)
    assert plan.stride == last.stride and plan.last == last.shape and plan.head != "unknown"


def test_a_frame_that_no_module_makes_is_seen() -> None:
    """LeNet-5's 28 x 28 digits stand in a frame of 2 pixels (LeCun et al. 1998)."""
    card = NETS["lenet5_modern"]
    plan = read(card.module(num_classes=10, **card.defaults), card.image)
    assert plan.touched == ((1, 1), (1, 1)) and plan.margin == 4


def test_where_nobody_can_tell_every_cell_is_touched() -> None:
    """A sampled grid (stn) may show the border anywhere."""
    card = NETS["stn"]
    plan = read(card.module(num_classes=10, **card.defaults), card.image)
    assert plan.touched == ((4, 4), (4, 4)) and plan.last[:2] == (4, 4)

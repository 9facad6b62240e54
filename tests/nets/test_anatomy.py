"""Receptive fields, lattices and costs read off the program, against gradients and hand counts."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import net_numbers
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from net_numbers import NARROW

from cnnjax.layers.pooling import POOLS, Pool
from cnnjax.nets import NETS, fit
from cnnjax.nets.anatomy import ELSEWHERE, Anatomy, anatomy
from cnnjax.nets.blocks import Downsampling
from cnnjax.ops import receptive
from cnnjax.ops.views import View

Reach = tuple[int, int]


def published(name: str) -> Anatomy:
    card = NETS[name]
    return anatomy(card.module(num_classes=card.classes, **card.defaults), card.image)


def linear(name: str, **choices: Any) -> Any:
    """Return the network without rectifiers and with means for maxima: every path counts."""
    card = NETS[name]
    plain = {"activation": "identity", "norm": "none", "dropout": 0.0, "head": "gap"}
    given = dict(card.defaults) | NARROW[name] | plain | choices
    return card.module(num_classes=2, pool=Downsampling("mean"), **given)


def averaging(net: Any, shape: tuple[int, ...]) -> Any:
    """Return variables of positive weights that add up to about one: nothing cancels or dies."""
    tree = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), jnp.zeros((1, *shape)))

    def fill(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        fan_in = int(np.prod(leaf.shape[:-1])) if "kernel" in name else 1
        return np.full(leaf.shape, 0.0 if "bias" in name else 1 / fan_in, np.float32)

    return jax.tree_util.tree_map_with_path(fill, tree)


def seen_by_gradient(net: Any, variables: Any, shape: tuple[int, ...], paths: Any) -> Any:
    """Return path -> sets of rows and of columns that the middle unit's gradient reaches."""

    def middles(x: jax.Array) -> list[jax.Array]:
        maps: dict[str, jax.Array] = {}

        def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            y = call(*args, **kwargs)
            maps["/".join(context.module.path)] = y[0] if isinstance(y, tuple) else y
            return y

        with nn.intercept_methods(keep):
            net.apply(variables, x, train=False)
        return [maps[p][0, maps[p].shape[1] // 2, maps[p].shape[2] // 2].sum() for p in paths]

    x = np.ones((1, *shape), np.float32)
    gradients = jax.jit(jax.jacrev(middles))(x)
    return [
        [set(np.flatnonzero(np.asarray(g)[0].any(axis=axes))) for axes in ((1, 2), (0, 2))]
        for g in gradients
    ]


def expected(layer: Any, axis: int, size: int, *, circular: bool = False) -> set[int]:
    """Return the pixels of the middle unit of a layer, as its line of the table says."""
    middle = layer.start[axis] + layer.stride[axis] * (layer.shape[axis] // 2)
    low = int(middle - (layer.field[axis] - 1) / 2)
    pixels = range(low, low + int(layer.field[axis]))
    return {p % size for p in pixels} if circular else {p for p in pixels if 0 <= p < size}


def ends(last: int, size: int, layer: Any) -> range:
    """Return where a field may end: at its last pixel, unless the image ends there.

    The last pixels of an image that a stride does not divide are seen by no unit.
    """
    cut = last == size - 1
    return range(last - (layer.stride[0] if cut else 0), last + 1)


def some(layers: list[Any]) -> list[Any]:
    """Return the first, the last and two of the layers between."""
    return [layers[i] for i in sorted({0, len(layers) // 3, 2 * len(layers) // 3, len(layers) - 1})]


QUICK, LONG = ("cnn", "lenet5", "all_cnn_c"), ("googlenet", "resnet50")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n, marks=[pytest.mark.slow] * (n not in QUICK) + [pytest.mark.long] * (n in LONG)
        )
        for n in NARROW
    ],
)
def test_fields_are_those_of_gradients(name: str) -> None:
    """Every family, at its smallest image and beside it a wider one: first and last pixel agree."""
    net, channels = linear(name), NETS[name].image[2]
    least = fit.smallest(net, channels)
    assert least is not None
    shape = (least, 2 * least, channels)
    layers = anatomy(net, shape).layers
    if name == "stn":  # what samples by content is global, and so is all that follows
        assert all(v.field is None for v in layers if v.path.startswith("net/"))
        return
    maps = some([v for v in layers if v.stride])
    found = seen_by_gradient(net, averaging(net, shape), shape, [v.path for v in maps])
    for layer, sets in zip(maps, found, strict=True):
        for axis, pixels in enumerate(sets):
            wanted = expected(layer, axis, shape[axis])
            assert min(pixels) == min(wanted), (layer, axis)
            assert max(pixels) in ends(max(wanted), shape[axis], layer), (layer, axis)


def test_fields_that_wrap_around() -> None:
    net, shape = linear("cnn", padding="CIRCULAR"), (16, 24, 3)
    layers = [v for v in anatomy(net, shape).layers if v.stride]
    found = seen_by_gradient(net, averaging(net, shape), shape, [v.path for v in layers])
    for layer, sets in zip(layers, found, strict=True):
        for axis, pixels in enumerate(sets):
            assert pixels == expected(layer, axis, shape[axis], circular=True)


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT", "EDGE"])
def test_a_last_map_of_one_pixel_is_read(padding: str) -> None:
    """Its whole border is copies of that pixel; the field is the one of a larger image."""
    net = NETS["resnet20_cifar"].module(num_classes=2, padding=padding, widths=(2, 2, 2))
    last = {n: anatomy(net, (n, n, 1)).layers[-3] for n in (4, 32)}
    assert last[4].field == last[32].field == (3 + 6 * 2 + 2 + 5 * 4 + 4 + 5 * 8,) * 2
    assert (last[4].stride, last[4].shape) == ((4, 4), (1, 1, 2))


def pool_views(module: Any, variables: Any, side: int) -> tuple[View | None, View | None]:
    def forward(variables: Any, x: jax.Array) -> jax.Array:
        y = module.apply(variables, receptive.enter(x, "pool"))
        return receptive.leave(y, "pool")

    image = jax.ShapeDtypeStruct((1, side, side, 4), jnp.float32)
    return receptive.read(forward, variables, image, watch=1).marks["pool"].views


LINEAR = ("mean", "sum", "blur", "gaussian_blur", "decimate", "space_to_depth", "softpool")
METHODS = [name for name in POOLS if name != "canonical"]


@pytest.mark.parametrize(
    "method", [m if m in ("mean", "max", "blur", "aps") else
               pytest.param(m, marks=pytest.mark.slow) for m in METHODS]
)  # fmt: skip
def test_no_pool_sees_more_than_its_view(method: str) -> None:
    """The gradients of random maps stay inside; those of linear methods reach both ends."""
    takes, side, unit = POOLS[method].takes, 12, 2
    sizes = {key: value for key, value in (("window", 3), ("stride", 2)) if key in takes}
    module = Pool(method, **sizes)
    x = net_numbers.images((16, side, side, 4))
    keys = {"params": jax.random.key(0), "pool": jax.random.key(1)}
    variables = module.init(keys, x)
    apply = jax.jit(jax.grad(lambda x: module.apply(variables, x)[:, unit, unit].sum()))
    gradient = np.asarray(apply(x))
    for axis, view in enumerate(pool_views(module, variables, side)):
        assert view is not None
        pixels = np.flatnonzero(gradient.any(axis=(0, 2 - axis, 3)))
        low, high = (end + unit * view.steps[1 + axis] for end in (view.low, view.high))
        assert low <= pixels.min() and pixels.max() <= high
        if method in LINEAR:
            assert (low, high) == (pixels.min(), pixels.max())


@pytest.mark.parametrize(
    ("name", "last", "field", "stride"),
    [
        ("vgg16", "stage4_conv2/pool", 212, 32),
        ("resnet18", "stage3_block1/conv1/norm", 435, 32),
        ("alexnet", "conv5/pool", 195, 32),
        ("lenet5", "c5/conv", 32, 4),
    ],
)
def test_known_fields(name: str, last: str, field: int, stride: int) -> None:
    """Araujo et al. 2019, Computing receptive fields of CNNs; VGG-16's 212 by Wu 2017."""
    (layer,) = (v for v in published(name).layers if v.path == last)
    assert layer.field == (field, field)
    assert layer.stride == (stride, stride)


# Multiply-adds in 10^9 as torchvision's model pages print them (GFLOPS of multiply-adds).
GIGA = {"alexnet": 0.71, "vgg16": 15.47, "resnet18": 1.81, "resnet50": 4.09, "googlenet_3x3": 1.50}


DEEP = ("resnet50", "googlenet_3x3")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in GIGA]
)
def test_products_are_the_published_ones(name: str) -> None:
    body = published(name)
    assert body.flops / 2e9 == pytest.approx(GIGA[name], abs=0.006)
    assert body.parameters - sum(
        v.parameters for v in body.layers if v.path == ELSEWHERE
    ) == NETS[name].parameters  # fmt: skip


# Trained values a layer, from the published shapes (torchvision prints the same), in order.
LAYERS = {
    "alexnet": [
        *(3 * 121 * 64 + 64, 64 * 25 * 192 + 192, 192 * 9 * 384 + 384, 384 * 9 * 256 + 256),
        *(256 * 9 * 256 + 256, 9216 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1000 + 1000),
    ],
    "zfnet": [
        *(3 * 49 * 96 + 96, 96 * 25 * 256 + 256, 256 * 9 * 384 + 384, 384 * 9 * 384 + 384),
        *(384 * 9 * 256 + 256, 9216 * 4096 + 4096, 4096 * 4096 + 4096, 4096 * 1000 + 1000),
    ],
    "all_cnn_c": [
        *(3 * 9 * 96 + 96, 96 * 9 * 96 + 96, 96 * 9 * 96 + 96, 96 * 9 * 192 + 192),
        *(192 * 9 * 192 + 192, 192 * 9 * 192 + 192, 192 * 9 * 192 + 192, 192 * 192 + 192, 1930),
    ],
    "vgg13bn_cifar": [
        *(1792, 128, 36_928, 128, 73_856, 256, 147_584, 256, 295_168, 512, 590_080, 512),
        *(1_180_160, 1024, *(2_359_808, 1024) * 3, 5130),
    ],
    # The stem; layer1's first bottleneck: 1 x 1, 3 x 3, 1 x 1 and the projection, each normalised.
    "resnet50": [9408, 128, 4096, 128, 36_864, 128, 16_384, 512, 16_384, 512],
    # The stem, then inception 3a: 1x1, 3x3 reduced, 3x3, 5x5 reduced, 3x3 for 5x5, projection.
    "googlenet_3x3": [
        *(9408, 128, 4096, 128, 110_592, 384, 12_288, 128, 18_432, 192, 110_592, 256),
        *(3072, 32, 4608, 64, 6144, 64),
    ],
    "resnet20_cifar": [432, 32, 2304, 32, 2304, 32],
}


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_layer_by_layer(name: str) -> None:
    found = [v.parameters for v in published(name).layers if v.parameters and v.path != ELSEWHERE]
    assert found[: len(LAYERS[name])] == LAYERS[name]
    if name in ("alexnet", "zfnet", "all_cnn_c", "vgg13bn_cifar"):
        assert len(found) == len(LAYERS[name])


@pytest.mark.slow
def test_a_bottlenecks_stride_is_at_its_3_x_3() -> None:
    """As in the models in common use; there is no option-A projection in CIFAR's networks."""
    layers = {v.path: v for v in published("resnet50").layers}
    assert layers["stage1_block0/conv0/conv"].stride == (4, 4)
    assert layers["stage1_block0/conv1/conv"].stride == (8, 8)
    assert not any("projection" in v.path for v in published("resnet56_cifar").layers)


def test_costs_by_hand() -> None:
    """LeNet-5: 5 x 5 x 6 products at 28 x 28 places; four bytes a value."""
    layers = {v.path: v for v in published("lenet5").layers}
    assert layers["c1/conv"].flops == 2 * 28 * 28 * 25 * 6
    assert layers["c5/conv"].flops == 2 * 400 * 120
    assert layers["f6"].flops == 2 * 120 * 84
    assert layers["c1/pool"].activation == 4 * 14 * 14 * 6
    counts = [layers[k].parameters for k in ("c1/conv", "c1/pool", "c3/conv", "c3/pool", "c5/conv")]
    assert counts == [156, 12, 1516, 32, 48_120]


def test_groups_cost_half() -> None:
    """Two towers halve the products of layers 2, 4 and 5 (Krizhevsky et al. 2012)."""
    layers = {v.path: v for v in published("alexnet_2012").layers}
    assert layers["conv2/conv"].flops == 2 * 27 * 27 * 256 * 25 * 48


@pytest.mark.parametrize(
    "name", ["stn", pytest.param("googlenet", marks=pytest.mark.slow), "resnet20_cifar"]
)
def test_every_parameter_is_some_layers(name: str) -> None:
    card = NETS[name]
    net = card.module(num_classes=card.classes, **card.defaults)
    tree = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), jnp.zeros((1, *card.image)))
    total = sum(int(np.prod(leaf.shape)) for leaf in flatten_dict(tree["params"]).values())
    assert anatomy(net, card.image).parameters == total


def test_what_is_global() -> None:
    """Heads over all places, spectra and sampled grids; a gap over a map that sees less is not."""
    assert {v.path: v.field for v in published("cnn").layers}["dense0"] is None
    (view, _) = pool_views(Pool("spectral", stride=2), {}, 12)
    assert view is not None
    assert view.extent >= 12
    assert not view.step


def test_unknown_operations_see_everything() -> None:
    def forward(x: jax.Array) -> jax.Array:
        y = jax.lax.fori_loop(0, 2, lambda i, x: x + 1, receptive.enter(x, "loop"))
        return receptive.leave(y, "loop")

    image = jax.ShapeDtypeStruct((1, 6, 6, 1), jnp.float32)
    (view, _) = receptive.read(forward, image, watch=0).marks["loop"].views
    assert view == View.everything(4)


@pytest.mark.parametrize(
    ("move", "low", "step"),
    [
        (lambda x: x[:, 1::2], 1, 2),
        (lambda x: x[:, ::-1], 7, -1),
        (lambda x: jnp.roll(x, 3, 1), -3, 1),
        (lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 0), (0, 0)), mode="wrap"), -2, 1),
        (lambda x: jnp.pad(x, ((0, 0), (2, 1), (0, 0), (0, 0)), mode="reflect"), -2, 1),
        (lambda x: x.reshape(1, 4, 2, 8, 1)[:, :, 1], 1, 2),
        (lambda x: jnp.split(x, 2, axis=1)[1], 4, 1),
        (lambda x: x + x[:, ::-1], 0, 0),
    ],
)
def test_rules(move: Any, low: int, step: int) -> None:
    def forward(x: jax.Array) -> jax.Array:
        return receptive.leave(move(receptive.enter(x, "m")), "m")

    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    (view, _) = receptive.read(forward, image, watch=0).marks["m"].views
    assert view is not None
    assert (view.low, view.steps[1]) == (low, step)


@pytest.mark.parametrize(("side", "stride"), [(4, 2), (3, 2), (3, 3), (2, 3)])
def test_behind_a_transposed_convolution_steps_are_fractions(side: int, stride: int) -> None:
    """Its gradients stay inside of the view, and reach to within a pixel of both ends."""
    module = nn.ConvTranspose(1, (side, side), strides=(stride, stride), padding="SAME")
    x = jnp.ones((1, 8, 8, 4))
    variables = jax.tree.map(jnp.ones_like, module.init(jax.random.key(0), x))
    (view, _) = pool_views(module, variables, 8)
    assert view is not None and view.step == pytest.approx(1 / stride)
    for unit in range(stride + 1, 2 * stride + 3):
        seen = jax.grad(lambda x, unit=unit: module.apply(variables, x)[:, unit, unit].sum())(x)
        pixels = np.flatnonzero(np.asarray(seen).any(axis=(0, 2, 3)))
        low, high = (end + unit * view.step for end in (view.low, view.high))
        assert len(pixels) == 0 or (
            low <= pixels.min() < low + 1 and high - 1 < pixels.max() <= high
        )

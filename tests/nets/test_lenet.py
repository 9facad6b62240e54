"""LeNet-5's own parts: the connection table, the output's bitmaps, the paper's loss."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import net_numbers
import numpy as np
import pytest
from flax.core import FrozenDict

from cnnjax.layers.rbf import bitmaps, rbf
from cnnjax.layers.table_conv import C3, TableConv
from cnnjax.nets import NETS
from cnnjax.nets.anatomy import anatomy
from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.lenet import LeNet5, uniform_by_fan_in
from cnnjax.optimization import LOSSES, RUBBISH

# Table I of the paper, a row an input map, a column an output map.
PRINTED = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def test_connection_table() -> None:
    printed = np.array([[c == "X" for c in row] for row in PRINTED.split()])
    ours = np.array([[i in row for row in C3] for i in range(6)])
    np.testing.assert_array_equal(ours, printed)
    assert ours.sum() == 60


def test_table_conv_is_a_convolution_with_holes() -> None:
    x = net_numbers.images((2, 9, 8, 6))
    layer = TableConv(features=16, kernel_size=(5, 5), padding="VALID")
    variables = net_numbers.variables(layer, x.shape[1:])
    kernel = full_kernel(variables["params"]["kernel"])
    expected = slide(x, kernel, variables["params"]["bias"])
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_the_fields_of_conv_count_in_a_connection_table_too() -> None:
    x = jnp.ones((1, 14, 14, 6))
    layer = TableConv(
        features=16, kernel_size=3, padding=1, kernel_dilation=2, use_bias=False, dtype=jnp.bfloat16
    )
    y, held = layer.init_with_output(jax.random.key(0), x)
    assert (y.shape, y.dtype, list(held["params"])) == ((1, 12, 12, 16), jnp.bfloat16, ["kernel"])
    with pytest.raises(ValueError, match="feature_group_count: expected 1"):
        layer.clone(feature_group_count=2).init(jax.random.key(0), x)


def test_table_conv_sees_each_copy_of_a_map_that_a_pool_multiplied() -> None:
    x = jnp.ones((1, 5, 5, 24))
    layer = TableConv(features=16, kernel_size=(5, 5), padding="VALID")
    kernel = jax.eval_shape(layer.init, jax.random.key(1), x)["params"]["kernel"]
    assert kernel.shape == (5, 5, 240)
    with pytest.raises(ValueError, match="multiple of 6"):
        layer.init(jax.random.key(1), jnp.ones((1, 5, 5, 7)))


def test_bitmaps_tell_the_digits_apart() -> None:
    pictures = bitmaps(10)
    assert pictures.shape == (10, 84)
    assert set(np.unique(pictures)) == {-1.0, 1.0}
    for a, b in itertools.combinations(pictures, 2):
        assert (a != b).sum() >= 4
    one = pictures[1].reshape(12, 7)
    assert (one[:, 3:5] == 1).sum() > (one[:, :2] == 1).sum()  # a stroke in the middle
    with pytest.raises(ValueError, match=r"num_classes: .* got 11"):
        bitmaps(11)


def test_rbf_is_zero_on_its_picture() -> None:
    pictures = bitmaps(10)
    penalties = np.asarray(rbf(jnp.asarray(pictures), pictures))
    assert (np.diag(penalties) == 0).all()
    # Each pixel that differs costs (1 - -1)^2 = 4.
    different = (pictures[:, None] != pictures[None]).sum(axis=-1)
    np.testing.assert_array_equal(penalties, 4 * different)


def squash(x: np.ndarray) -> np.ndarray:
    return 1.7159 * np.tanh(2 / 3 * x)


def slide(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    taps = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcij,ijcd->nhwd", taps, kernel) + bias


def subsample(x: np.ndarray, coefficient: np.ndarray, bias: np.ndarray) -> np.ndarray:
    n, height, width, channels = x.shape
    blocks = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    return coefficient * blocks.mean(axis=(2, 4)) + bias


def full_kernel(flat: np.ndarray) -> np.ndarray:
    """C3's kernel with zeros where nothing is connected."""
    kernel = np.zeros((5, 5, 6, 16), np.float32)
    ends = np.cumsum([len(row) for row in C3])
    for target, (row, end) in enumerate(zip(C3, ends, strict=True)):
        kernel[:, :, sorted(row), target] = flat[:, :, end - len(row) : end]
    return kernel


def test_forward_pass_is_the_papers() -> None:
    """C1, S2, C3, S4, C5, F6 and the output, each squashed where the paper squashes, in NumPy."""
    net = LeNet5(num_classes=10)
    x = net_numbers.images((3, 32, 32, 1))
    variables = net_numbers.variables(net, x.shape[1:])
    p = variables["params"]
    y = squash(slide(x, **p["c1"]["conv"]))
    y = squash(subsample(y, **p["c1"]["pool"]))
    y = squash(slide(y, full_kernel(p["c3"]["conv"]["kernel"]), p["c3"]["conv"]["bias"]))
    y = squash(subsample(y, **p["c3"]["pool"]))
    y = squash(slide(y, **p["c5"]["conv"])).reshape(3, 120)
    y = squash(y @ p["f6"]["kernel"] + p["f6"]["bias"])
    expected = -((y[:, None] - bitmaps(10)[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(jax.jit(net.apply)(variables, x), expected, rtol=1e-4)


def test_published_loss() -> None:
    """Eq. 9: y_D + log(e^-j + sum_i e^-y_i)."""
    penalties = np.array([[3.0, 0.5, 7.0], [0.1, 9.0, 2.0]])
    labels = np.array([1, 2])
    expected = penalties[[0, 1], labels] + np.log(np.exp(-RUBBISH) + np.exp(-penalties).sum(-1))
    found = LOSSES["lenet_map"](-jnp.asarray(penalties), jnp.asarray(labels), 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_published_initial_weights() -> None:
    w = np.asarray(jax.jit(lambda key: uniform_by_fan_in(key, (5, 5, 6, 400)))(jax.random.key(0)))
    assert np.abs(w).max() <= 2.4 / 150
    assert np.abs(w).max() > 0.99 * 2.4 / 150


def test_every_map_of_the_table_starts_by_its_own_fan_in() -> None:
    def fan_in(key: jax.Array, shape: tuple[int, ...], dtype: object) -> jax.Array:
        return jnp.full(shape, np.prod(shape[:-1]), jnp.float32)

    layer = TableConv(features=16, kernel_size=(5, 5), padding="VALID", kernel_init=fan_in)
    kernel = layer.init(jax.random.key(0), jnp.ones((1, 5, 5, 6)))["params"]["kernel"]
    expected = [25 * len(row) for row in C3 for _ in row]
    np.testing.assert_array_equal(kernel, np.broadcast_to(expected, (5, 5, 60)))


@pytest.mark.parametrize("method", ["space_to_depth", "max_mean", "blur", "aps"])
def test_every_kind_of_pool_fits(method: str) -> None:
    card = NETS["lenet5"]
    params = {"combine": "concat"} if method == "max_mean" else {}
    pool = Downsampling(method, params=FrozenDict(params))
    net = card.module(num_classes=10, pool=pool, **(dict(card.defaults) | {"padding": "CIRCULAR"}))
    image = jax.ShapeDtypeStruct((2, 32, 32, 1), jnp.float32)
    out = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], image)
    assert out.shape == (2, 10)


def test_mnist_stands_on_the_papers_field() -> None:
    """28 x 28 is seen as 32 x 32 with two pixels of background around; no layer changes."""
    net = LeNet5(num_classes=10)
    x = net_numbers.images((2, 28, 28, 1))
    variables = net_numbers.variables(net, (28, 28, 1))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(
        np.shape, net_numbers.variables(net, (32, 32, 1))
    )
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    apply = jax.jit(net.apply)
    np.testing.assert_array_equal(apply(variables, x), apply(variables, padded))
    layers = [v.parameters for v in anatomy(net, (28, 28, 1)).layers if v.parameters]
    assert layers == [156, 12, 1516, 32, 48_120, 10_164]


def test_a_chosen_padding_takes_the_place_of_the_field() -> None:
    card = NETS["lenet5"]
    net = card.module(num_classes=10, **(dict(card.defaults) | {"padding": "SAME"}))
    (first, *_) = anatomy(net, (28, 28, 1)).layers
    assert first.shape == (28, 28, 6)
    net_by_default = card.module(num_classes=10, **card.defaults)
    assert anatomy(net_by_default, (28, 28, 1)).layers[0].start == (0.0, 0.0)

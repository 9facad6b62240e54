"""Wu 2017, Introduction to Convolutional Neural Networks: what it derives holds for our layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import net_numbers
import numpy as np
import pytest

from cnnjax.layers.pooling import pool
from cnnjax.nets import NETS
from cnnjax.nets.vgg import VGG
from cnnjax.ops.conv import conv


def unfolded(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """phi(x): one row a place, one column a tap and channel (section 5.4)."""
    (height, width, channels), (kh, kw) = x.shape, size
    rows = [
        x[i : i + kh, j : j + kw].reshape(-1)
        for i in range(height - kh + 1)
        for j in range(width - kw + 1)
    ]
    return np.stack(rows).reshape(-1, kh * kw * channels)


def whole_numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize(("size", "kernel"), [((6, 7), (3, 2)), ((5, 5), (1, 1)), ((4, 4), (4, 4))])
def test_convolution_is_a_matrix_product(size: tuple[int, int], kernel: tuple[int, int]) -> None:
    """Y = phi(X) F, and both gradients (eq. 16, 28 and 33), exactly, on whole numbers."""
    x, f = whole_numbers((*size, 3), 0), whole_numbers((*kernel, 3, 4), 1)
    phi, matrix = unfolded(x, kernel), f.reshape(-1, 4)
    y, pull = jax.vjp(lambda x, f: conv(x, f, padding="VALID"), jnp.asarray(x), jnp.asarray(f))
    np.testing.assert_array_equal(np.asarray(y).reshape(-1, 4), phi @ matrix)
    dy = whole_numbers(y.shape, 2)
    dx, df = pull(jnp.asarray(dy))
    np.testing.assert_array_equal(np.asarray(df).reshape(-1, 4), phi.T @ dy.reshape(-1, 4))
    # The indicator M of eq. 24: column m of phi's derivative sums where a pixel was copied to.
    copies = unfolded(np.arange(x.size).reshape(x.shape), kernel)
    expected = np.zeros(x.size, np.float32)
    np.add.at(expected, copies.reshape(-1), (dy.reshape(-1, 4) @ matrix.T).reshape(-1))
    np.testing.assert_array_equal(np.asarray(dx).reshape(-1), expected)


def test_pooling_as_an_indicator_matrix() -> None:
    """Max pooling is S(X) phi(X) with one 1 a row; its gradient is S^T dY (section 6)."""
    x = np.random.default_rng(0).permutation(36).astype(np.float32).reshape(6, 6, 1)
    blocks = x.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(9, 4)
    y, pull = jax.vjp(lambda x: pool(x, "max", window=2), jnp.asarray(x))
    np.testing.assert_array_equal(np.asarray(y).reshape(-1), blocks.max(axis=1))
    dy = whole_numbers((9,), 1)
    expected = np.where(blocks == blocks.max(axis=1, keepdims=True), dy[:, None], 0)
    (dx,) = pull(jnp.asarray(dy.reshape(3, 3, 1)))
    found = np.asarray(dx).reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(9, 4)
    np.testing.assert_array_equal(found, expected)


def test_a_full_connection_is_a_convolution_of_the_maps_size() -> None:
    """Section 7.1, VGG's fc6: the same products in the same order."""
    x, f = whole_numbers((7, 7, 3), 0), whole_numbers((7, 7, 3, 5), 1)
    y = conv(jnp.asarray(x), jnp.asarray(f), padding="VALID")
    np.testing.assert_array_equal(np.asarray(y).reshape(5), x.reshape(-1) @ f.reshape(-1, 5))


def receptive_field(layers: list[tuple[int, int]]) -> int:
    """1 + sum (kernel - 1) * product of the strides before, for (kernel, stride) pairs."""
    field, jump = 1, 1
    for kernel, stride in layers:
        field, jump = field + (kernel - 1) * jump, jump * stride
    return field


def seen(layers: list[tuple[int, int]], side: int) -> int:
    """Return how many columns the middle output depends on, by its gradient."""

    def middle(x: jax.Array) -> jax.Array:
        for kernel, stride in layers:
            x = conv(x, jnp.ones((kernel, kernel, 1, 1)), stride=stride, padding="ZEROS")
        return x[0, x.shape[1] // 2, x.shape[2] // 2, 0]

    gradient = np.asarray(jax.jit(jax.grad(middle))(jnp.zeros((1, side, side, 1))))[0, :, :, 0]
    columns = np.flatnonzero(gradient.any(axis=0))
    assert columns[-1] - columns[0] + 1 == len(columns)
    return len(columns)


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([(3, 1)] * 2, 5),
        ([(3, 1)] * 3, 7),
        ([(3, 2), (3, 2)], 7),
        ([(7, 2), (3, 2), (3, 1)], 19),
    ],
)
def test_receptive_fields(layers: list[tuple[int, int]], field: int) -> None:
    """Section 7: three 3 x 3 convolutions see what one 7 x 7 sees, with 27/49 of its weights."""
    assert receptive_field(layers) == field
    assert seen(layers, side=49) == field


@pytest.mark.slow
def test_vgg16_sees_212_pixels() -> None:
    """13 convolutions and 5 pools: 212 pixels at the last pool, by the formula and by gradient.

    With positive weights, no biases and mean pooling every path counts; the network is narrow.
    """
    layers = [(3, 1), (3, 1), (2, 2)] * 2 + [(3, 1), (3, 1), (3, 1), (2, 2)] * 3
    assert receptive_field(layers) == 212
    card = NETS["vgg16"]
    choices = dict(card.defaults) | {"widths": (1,) * 5, "dense": ()}
    net: VGG = card.module(num_classes=1, **choices)
    net = net.clone(pool=net.pool.__class__("mean"))
    side = 256
    variables = jax.tree.map(np.abs, net_numbers.variables(net, (side, side, 1)))
    # A last map of 8 x 8, 32 pixels each; the logit reads one place alone.
    kernel = np.zeros((8, 8, 1), np.float32)
    kernel[4, 4] = 1.0
    variables["params"]["logits"]["kernel"] = kernel.reshape(-1, 1)
    x = np.ones((1, side, side, 1), np.float32)
    gradient = jax.jit(jax.grad(lambda x: net.apply(variables, x)[0, 0]))(x)
    columns = np.flatnonzero(np.asarray(gradient)[0, :, :, 0].any(axis=0))
    assert (columns[0], columns[-1], len(columns)) == (4 * 32 - 90, 4 * 32 - 90 + 211, 212)

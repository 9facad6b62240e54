"""ops.borders against jnp.pad: values, both transposes, borders wider than the map."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import padding as pads
from cnnjax.ops.borders import bordered
from cnnjax.ops.plain import plain

SIDES = [((1, 1), (0, 2)), ((9, 1), (0, 11))]
MORE = [((2, 0), (3, 3)), ((0, 0), (1, 0)), ((4, 3), (4, 3))]


def whole(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(-4, 5, shape), jnp.float32)


def padded(x, sides, mode):
    return jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*sides, (0, 0)], mode=mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["wrap", "reflect", "edge"])
@pytest.mark.parametrize(
    "sides", [*SIDES, *(pytest.param(s, marks=pytest.mark.long) for s in MORE)], ids=str
)
def test_values_and_derivatives_equal_those_of_pad(sides, mode):
    x, tangent = whole((2, 5, 4, 3)), whole((2, 5, 4, 3), 1)
    y, pull = jax.vjp(lambda x: padded(x, sides, mode), x)
    g = whole(y.shape, 2)

    def ours(x):
        return bordered(x, sides=sides, mode=mode)

    got, back = jax.vjp(ours, x)
    np.testing.assert_array_equal(got, y)
    np.testing.assert_array_equal(back(g)[0], pull(g)[0])
    moved = jax.jvp(ours, (x,), (tangent,))[1]
    np.testing.assert_array_equal(moved, padded(tangent, sides, mode))
    again = jax.vjp(lambda g: back(g)[0], g)[1](tangent)[0]
    np.testing.assert_array_equal(again, padded(tangent, sides, mode))


@pytest.mark.parametrize("mode", ["wrap", "reflect", "edge"])
def test_leading_axes_and_vmap(mode):
    x, sides = whole((2, 3, 5, 4, 2)), ((2, 1), (1, 2))
    want = padded(x, sides, mode)
    np.testing.assert_array_equal(bordered(x, sides=sides, mode=mode), want)
    mapped = jax.vmap(lambda x: bordered(x, sides=sides, mode=mode), 1, 1)(x)
    np.testing.assert_array_equal(mapped, want)


def test_a_single_row_is_repeated_where_it_cannot_be_reflected():
    x = whole((1, 1, 4, 1))
    y = bordered(x, sides=((1, 2), (1, 1)), mode="reflect")
    np.testing.assert_array_equal(
        y, padded(padded(x, ((1, 2), (0, 0)), "edge"), ((0, 0), (1, 1)), "reflect")
    )


@pytest.mark.parametrize("mode", ["wrap", "reflect", "edge"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_border_in_plain_operations_has_no_empty_piece(size, mode):
    """Readers of the program and the ONNX converter stumble over those of jnp.pad."""
    image = jnp.zeros((1, size, size, 1))
    build = functools.partial(bordered, sides=((1, 0), (2, 3)), mode=mode)
    program = jax.make_jaxpr(plain(build, image))(image)
    made = [v.aval.shape for equation in program.jaxpr.eqns for v in equation.outvars]
    assert made and all(map(all, made))


@pytest.mark.parametrize("padding", ["ZEROS", "CIRCULAR", "REFLECT", "EDGE"])
def test_lines_that_no_window_reaches_are_not_made(padding):
    x = whole((2, 6, 6, 3))
    assert pads.pad(x, window=(2, 2), stride=(2, 2), padding=padding) is x
    assert pads.pad(x, window=(3, 2), stride=(2, 1), padding=padding).shape == (2, 7, 7, 3)
    assert pads.pad(x, window=(3, 3), stride=(4, 4), padding=padding).shape == (2, 7, 7, 3)
    assert pads.pad(x, window=(1, 1), stride=(5, 5), padding=padding) is x

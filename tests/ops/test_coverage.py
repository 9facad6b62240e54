"""Which outputs cover a pixel, beside a loop over all of them; and what memory that takes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.bench.pooling import OTHERS, with_gradient
from cnnjax.ops.coverage import covered, most_over, over

SIDE = st.integers(1, 7)


@given(outputs=SIDE, window=SIDE, stride=SIDE, rest=st.integers(0, 6))
def test_outputs_over_each_pixel_of_an_axis(outputs: int, window: int, stride: int, rest: int):
    size = (outputs - 1) * stride + window + rest % stride
    found = over(size, outputs, window, stride)
    assert len(found) == most_over(outputs, window, stride)
    for pixel in range(size):
        want = [(o, pixel - o * stride) for o in range(outputs) if 0 <= pixel - o * stride < window]
        got = [(place[pixel], tap[pixel]) for place, tap in found if tap[pixel] >= 0]
        assert got == want
        assert all(0 <= place[pixel] < outputs for place, _ in found)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2), (4, 4)], ids=str)
def test_terms_are_those_of_a_loop(stride):
    """Told tap and pixel, in row-major order (`join` keeps it), and without what is not there."""
    window, outputs, size = (3, 4), (3, 2), (12, 9)
    maps = np.arange(2 * 3 * 2 * 2.0).reshape(2, *outputs, 2).astype("float32")
    own = np.arange(2 * 12 * 9 * 2.0).reshape(2, *size, 2).astype("float32")

    def term(tap, value, pixel):
        return value + 100 * jnp.asarray(tap, "float32") + 7 * pixel

    def then(one, other):
        return one / 2 + other

    got = covered(
        term, (maps,), window=window, stride=stride, size=size, own=(own,), join=then, absent=0
    )
    most = [most_over(*axis) for axis in zip(outputs, window, stride, strict=True)]
    want = np.zeros((2, *size, 2), "float32")
    for row, column in np.ndindex(size):
        last = [min(p // s, o - 1) for p, s, o in zip((row, column), stride, outputs, strict=True)]
        for a, b in np.ndindex(*most):
            r, c = last[0] - most[0] + 1 + a, last[1] - most[1] + 1 + b
            i, j = row - r * stride[0], column - c * stride[1]
            there = r >= 0 and c >= 0 and i < window[0] and j < window[1]
            here = maps[:, r, c] + 100 * (i * window[1] + j) + 7 * own[:, row, column]
            want[:, row, column] = want[:, row, column] / 2 + (here if there else 0)
    np.testing.assert_array_equal(got, want)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU's own program is another")
@pytest.mark.parametrize("window", [(2, 2), (3, 2), (3, 1), (5, 2)], ids=str)
@pytest.mark.parametrize("method", ["max", "min", "mean", "sum", "lp", "softpool", "blur"])
def test_a_pool_that_trains_needs_no_more_memory_than_stock(method: str, window):
    def needed(function):
        both = jax.jit(with_gradient(function))
        return both.lower(x, g).compile().memory_analysis().temp_size_in_bytes

    ours, stock, _ = OTHERS[method](*window)
    x = jax.ShapeDtypeStruct((8, 32, 32, 64), "float32")
    g = jax.eval_shape(ours, x)
    assert needed(ours) <= min(map(needed, stock.values()))

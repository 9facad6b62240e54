"""Maps that are computed in one loop are what they are alone, bit for bit."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops.fusion import together

VALUES = jnp.asarray([-jnp.inf, -1.0, -0.0, 0.0, 2.5, jnp.inf, jnp.nan])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("transformed", [lambda f: f, jax.jit, lambda f: jax.vmap(jax.jit(f))])
def test_maps_in_one_loop_keep_their_bits(dtype, transformed):
    one = jnp.tile(VALUES.astype(dtype), (3, 2, 1))
    two = jnp.arange(one.size, dtype="int8").reshape(one.shape) - 128
    got = transformed(together)(one, two)
    np.testing.assert_array_equal(got[1], two)
    bits = "uint32" if dtype == "float32" else "uint16"
    assert got[0].dtype == one.dtype
    number = ~np.isnan(np.asarray(one, "float32"))  # which NaN it is, nobody promises
    np.testing.assert_array_equal(
        *(np.asarray(a).view(bits)[number] for a in (got[0], one)), strict=True
    )
    np.testing.assert_array_equal(np.isnan(np.asarray(got[0], "float32")), ~number)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms fuse by themselves")
@pytest.mark.slow  # compiled as users have it
def test_the_map_they_share_is_read_once():
    def both(x):
        return together(jnp.maximum(x[:-1], x[1:]), (x[:-1] >= x[1:]).astype("int8"))

    program = jax.jit(both).lower(jnp.zeros((9, 64))).compile().as_text()
    entry = program[program.index("ENTRY") :]
    assert len(re.findall(r" fusion\(", entry)) == 1, entry

"""A multilinear map: a form by platform, in programs of every transformation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cnnjax.ops.multilinear import multilinear
from cnnjax.ops.plain import plain

twice = multilinear("twice", lambda x: 2 * x, {0: lambda g, x: twice(g)}, cpu=lambda x: x + x)
X = jnp.arange(6.0).reshape(2, 3)
FUNCTIONS = {
    "value": twice,
    "gradient": jax.grad(lambda x: jnp.sum(twice(x) * x)),
    "vmap": jax.vmap(twice),
    "scan": lambda x: jax.lax.scan(lambda c, _: (twice(c), None), x, None, length=2)[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_platform_has_its_form(name: str) -> None:
    def program(*platforms: str) -> str:
        return export.export(jax.jit(FUNCTIONS[name]), platforms=platforms)(X).mlir_module()

    assert "constant dense<2.0" in program("cuda") and "constant dense<2.0" in program("tpu")
    assert "constant dense<2.0" not in program("cpu")


def test_one_program_for_several_platforms() -> None:
    program = export.export(jax.jit(twice), platforms=("cpu", "cuda"))(X)
    np.testing.assert_array_equal(program.call(X), 2 * X)


def test_readers_see_the_form_of_all_platforms() -> None:
    names = {equation.primitive.name for equation in jax.make_jaxpr(plain(twice, X))(X).eqns}
    assert names == {"mul"}


def test_eager_calls_and_shapes_are_kept_apart_by_what_is_static() -> None:
    def cut(x: jax.Array, *, size: int) -> jax.Array:
        return x[..., :size]

    def padded(g: jax.Array, x: jax.Array, *, size: int) -> jax.Array:
        return jnp.pad(g, [(0, 0)] * (g.ndim - 1) + [(0, x.shape[-1] - size)])

    first = multilinear("first", cut, {0: padded})
    for size in (1, 2, 1):
        np.testing.assert_array_equal(first(X, size=size), X[:, :size])
        assert jax.eval_shape(lambda x, size=size: first(x, size=size), X).shape == (2, size)
        grad = jax.grad(lambda x, size=size: jnp.sum(first(x, size=size)))(X)
        np.testing.assert_array_equal(grad, jnp.pad(jnp.ones((2, size)), [(0, 0), (0, 3 - size)]))

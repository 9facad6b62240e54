"""Plain: the same numbers, and none of our primitives left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr

import cnnjax
from cnnjax.ops.plain import plain

X = jax.random.normal(jax.random.key(0), (2, 12, 12, 4))
KERNEL = jax.random.normal(jax.random.key(1), (3, 3, 1, 4))

FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "max": lambda x: cnnjax.pool(x, "max", window=3, stride=2),
    "mean": lambda x: cnnjax.pool(x, "mean", window=2),
    "blur": lambda x: cnnjax.pool(x, "blur", stride=2, padding="REFLECT"),
    "softpool": lambda x: cnnjax.pool(x, "softpool", window=3, stride=3),
    "conv": lambda x: cnnjax.conv(x, jnp.tile(KERNEL, (1, 1, 4, 1))),
    "depthwise": lambda x: cnnjax.conv(x, KERNEL, groups=4),
    "gradient": lambda x: jax.grad(
        lambda x: jnp.sum(cnnjax.pool(x, "mean", window=3, stride=2) ** 2)
    )(x),
    "branches": lambda x: jax.lax.switch(
        jnp.argmax(x[0, 0, 0]), [jnp.sin, lambda x: cnnjax.pool(x, "mean", window=1)] * 2, x
    ),
    "stacks": lambda x: jnp.stack(jnp.unstack(x, axis=-1)[::-1], axis=1),
}


def primitives(program: Any) -> Iterator[str]:
    """Yield the names of all primitives, nested ones too."""
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                if hasattr(inner, "eqns") or isinstance(inner, ClosedJaxpr):
                    yield from primitives(inner)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_numbers_from_plain_operations(name: str) -> None:
    function = FUNCTIONS[name]
    written = plain(function, X)
    np.testing.assert_allclose(written(X), function(X), rtol=1e-5, atol=1e-5)
    found = set(primitives(jax.make_jaxpr(written)(X)))
    odd = {"custom_jvp_call", "platform_index", "unstack", "stack"}
    assert not {p for p in found if p.startswith("cnnjax")} | (found & odd)


@pytest.mark.parametrize("power", [1, 2, 3, 7])
def test_whole_powers_are_products(power: int) -> None:
    """An ONNX converter writes powers whose type onnxruntime refuses."""
    written = plain(lambda x: jax.lax.integer_pow(x, power), X)
    np.testing.assert_allclose(written(X), np.asarray(X) ** power, rtol=1e-5)
    assert "integer_pow" not in set(primitives(jax.make_jaxpr(written)(X)))


def test_the_control_has_some() -> None:
    found = set(primitives(jax.make_jaxpr(FUNCTIONS["mean"])(X)))
    assert any(name.startswith("cnnjax") for name in found)

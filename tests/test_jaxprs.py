"""A program is said by its values: what differs is said otherwise, what has none is not said."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.extend.random import define_prng_impl

from cnnjax.jaxprs import Unknown, words
from cnnjax.layers.pooling import POOLS, Pool
from cnnjax.ops.means import SoftMean
from cnnjax.ops.multilinear import multilinear
from cnnjax.ops.smooth import windowed
from cnnjax.ops.windows import wide

X = np.ones((4, 4), np.float32)
# Somebody's generator of random numbers, under any name.
OTHER = define_prng_impl(
    key_shape=(4,),
    seed=lambda seed: jnp.full((4,), seed, jnp.uint32),
    split=lambda key, shape: jnp.broadcast_to(key, (*shape, 4)),
    random_bits=lambda key, bits, shape: jnp.broadcast_to(key[0], shape),
    fold_in=lambda key, data: key + data,
    name="of_another_package",
)
TABLE = np.arange(2000, dtype=np.float32)


def said(function: Callable[..., Any], *args: Any) -> bytes:
    return b"\0".join(words(jax.make_jaxpr(function)(*args)))


def conv(x: jax.Array, **how: Any) -> jax.Array:
    return lax.conv_general_dilated(x[None, None], jnp.ones((1, 1, 2, 2)), (1, 1), "VALID", **how)


def looped(x: jax.Array, table: np.ndarray) -> jax.Array:
    return lax.fori_loop(0, 3, lambda i, y: y + jnp.asarray(table)[i], x)


def changed(at: int) -> np.ndarray:
    table = TABLE.copy()
    table[at] += 1
    return table


# Programs that print alike, or nearly so.
PAIRS = {
    "a number": (lambda x: x + 1.5, lambda x: x + 1.25),
    "an operation": (jnp.sin, jnp.cos),
    "the order": (lambda x: x - x.T, lambda x: x.T - x),
    "an array": (lambda x: x[0] + TABLE[:4], lambda x: x[0] + changed(2)[:4]),
    "one of many numbers": (partial(looped, table=TABLE), partial(looped, table=changed(1000))),
    "a type": (lambda x: x.astype(jnp.bfloat16), lambda x: x.astype(jnp.float16)),
    "precision": (conv, partial(conv, precision=lax.Precision.HIGHEST)),
    "inside a loop": (
        lambda x: lax.fori_loop(0, 3, lambda i, y: jnp.sin(y), x),
        lambda x: lax.fori_loop(0, 3, lambda i, y: jnp.cos(y), x),
    ),
    "a branch": (
        lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
        lambda x: lax.cond(x[0, 0] > 0, jnp.cos, jnp.sin, x),
    ),
    "the results' order": (lambda x: (x + 1, x + 2), lambda x: (x + 1, x + 2)[::-1]),
    "the sign of a NaN": (lambda x: x * math.nan, lambda x: x * math.copysign(math.nan, -1)),
    "the sign of zero": (lambda x: x * 0.0, lambda x: x * -0.0),
    "which input": (lambda x: lax.scan(lambda c, y: (c + y, y), x[0], x)[0], lambda x: x[0] + x[1]),
}


@pytest.mark.parametrize("what", PAIRS)
def test_what_differs_is_said_otherwise(what: str) -> None:
    one, other = PAIRS[what]
    assert said(one, X) == said(one, X)
    assert said(one, X) != said(other, X)


def test_names_of_functions_and_variables_are_not_said() -> None:
    def f(a: jax.Array) -> jax.Array:
        return a * 2

    def g(b: jax.Array) -> jax.Array:
        return b * 2

    assert said(f, X) == said(g, X)


def test_the_arguments_are_said() -> None:
    assert len({said(jnp.sin, X), said(jnp.sin, X[:2]), said(jnp.sin, X.astype(np.float16))}) == 3


class Silent(SoftMean):
    """Somebody's rule, which does not say what it holds."""

    def __repr__(self) -> str:
        return "SoftMean(beta=1.0)"


def silent(x: jax.Array) -> jax.Array:
    return jnp.sum(windowed(x[None, :, :, None], Silent(2.0), window=(2, 2), stride=(2, 2)))


def strange() -> dict[str, Callable[..., Any]]:
    """Return functions of which a jaxpr does not say everything."""
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    other = Primitive("of_another_package")
    other.def_abstract_eval(lambda x: x)
    mine = multilinear("test_jaxprs", lambda x: 2 * x, {0: lambda t, x: 2 * t})
    key = jax.random.key(3)
    wrapped = functools.wraps(wide)(lambda x: 2 * x)
    wearing = multilinear("test_wearing", wrapped, {0: lambda t, x: 2 * t})
    half = multilinear("test_half", wide, {0: lambda t, x: 2 * t}, cpu=lambda x: 2 * x)
    return {
        "a call back": lambda x: jax.pure_callback(lambda x: x, shape, x),
        "a print": lambda x: jax.debug.print("{}", x),
        "another primitive": other.bind,
        "a multilinear map from outside": mine,
        "a map that wears a name of this package": wearing,
        "a map that is ours but for its form on a CPU": half,
        "another generator": lambda x: x + jax.random.uniform(jax.random.key(0, impl=OTHER)),
        "a key of another generator": lambda x: jax.random.wrap_key_data(
            x[0].astype(jnp.uint32), impl=OTHER
        ),
        "an object that says too little": jax.grad(
            lambda x: jnp.sum(
                windowed(x[None, :, :, None], Silent(2.0), window=(2, 2), stride=(2, 2))
            )
        ),
        "foreign code": jax.ffi.ffi_call("of_another_package", shape),
        "a key that is a constant": lambda x: x + jax.random.normal(key, x.shape),
        "any of them in a loop": lambda x: lax.fori_loop(0, 3, lambda i, y: other.bind(y), x),
    }


@pytest.mark.parametrize("what", strange())
def test_what_has_no_value_is_not_said(what: str) -> None:
    with pytest.raises(Unknown):
        said(strange()[what], X)


@pytest.mark.parametrize("name", [name for name in POOLS if name != "canonical"])
def test_every_pool_can_be_said_with_its_gradient(name: str) -> None:
    stride = 2 if "stride" in POOLS[name].takes else None
    module, x = Pool(name, stride=stride), jnp.ones((2, 8, 8, 4))
    rngs = {"params": jax.random.key(0), "pool": jax.random.key(1)}

    def value(x: jax.Array, rngs: Any) -> jax.Array:
        return jnp.sum(module.init_with_output(rngs, x, train=True)[0])

    assert said(jax.grad(value), x, rngs)


CODE = """
import hashlib, jax, jax.numpy as jnp
from cnnjax import pool
from cnnjax.jaxprs import words
x = jnp.ones((1, 9, 9, 2))
program = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(pool(x, "aps", stride=3))))(x)
print(hashlib.sha256(b"".join(words(program))).hexdigest())
"""


def test_another_process_says_the_same() -> None:
    said = set()
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        words = [sys.executable, "-c", CODE]
        said.add(subprocess.run(words, env=env, check=True, capture_output=True).stdout)
    assert len(said) == 1

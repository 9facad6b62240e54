"""Options for XLA's CPU compiler: given where it knows them, and values stay."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import compiling
from cnnjax.compiling import STEADY, quick_jit, steady_jit


def descend(layers: list[jax.Array], x: jax.Array) -> list[jax.Array]:
    def loss(layers: list[jax.Array]) -> jax.Array:
        first, second = layers
        return jnp.sum(jnp.tanh(jnp.tanh(x @ first) @ second) ** 2)

    return jax.tree.map(lambda w, g: w - 0.1 * g, layers, jax.grad(loss)(layers))


X, *LAYERS = (np.random.default_rng(i).standard_normal((64, 64), np.float32) for i in range(3))


def copies(function: Any) -> int:
    return function.lower(LAYERS, X).compile().as_text().count(" copy(")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are of XLA for CPU")
def test_the_options_reach_the_compiler() -> None:
    assert copies(steady_jit(descend, donate_argnums=0)) < copies(
        jax.jit(descend, donate_argnums=0)
    )


@pytest.mark.parametrize("form", [quick_jit, steady_jit])
def test_values_are_those_of_jit(form) -> None:
    got = form(descend, donate_argnums=0)(list(map(jnp.asarray, LAYERS)), X)
    for ours, theirs in zip(got, jax.jit(descend)(LAYERS, X), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_xla_does_not_know_is_left_out(monkeypatch) -> None:
    monkeypatch.setattr(compiling, "STEADY", {**STEADY, "xla_cpu_of_another_version": True})
    given = steady_jit(descend)
    assert set(given.options) == set(STEADY)
    given(LAYERS, X)


def test_what_the_user_chose_is_left_alone(monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    assert set(steady_jit(descend).options) == set(STEADY) - {"xla_cpu_prefer_vector_width"}


def test_nothing_is_asked_of_the_platform_before_the_first_call(monkeypatch) -> None:
    def asked() -> str:
        raise AssertionError("the platform was asked for")

    monkeypatch.setattr(jax, "default_backend", asked)
    steady_jit(descend)
    quick_jit(descend)

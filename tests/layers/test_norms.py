"""Normalisations: the naive loop agrees, shapes stay, any number of channels works."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.layers.norms import NORMS, has_bias, local_response_norm, normalize


class Normal(nn.Module):
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return normalize(x, self.norm, train=train)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_response_norm_is_the_naive_loop(size: int) -> None:
    """Krizhevsky et al. 2012, section 3.3: the sum over max(0, i - n/2) to min(N - 1, i + n/2)."""
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 7)).astype(np.float32)
    expected = np.zeros_like(x)
    for i in range(7):
        low, high = max(0, i - size // 2), min(7, i + size - size // 2)
        energy = (x[..., low:high] ** 2).sum(axis=-1)
        expected[..., i] = x[..., i] / (2.0 + 0.3 * energy) ** 0.75
    y = local_response_norm(jnp.asarray(x), size=size, alpha=0.3)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_response_norm_has_the_published_constants() -> None:
    x = jnp.full((1, 1, 1, 5), 10.0)
    y = local_response_norm(x)
    np.testing.assert_allclose(y[..., 2], 10 / (2 + 1e-4 * 500) ** 0.75, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 6, 48])
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_takes_every_width(norm: str, channels: int) -> None:
    x = jnp.zeros((2, 4, 4, channels))
    y, variables = jax.eval_shape(lambda x: Normal(norm).init_with_output(jax.random.key(0), x), x)
    assert y.shape == x.shape
    names = set(variables.get("params", {}).get("norm", {}))
    assert ("bias" in names) == has_bias(norm)


def test_batch_statistics_run_as_in_the_reference() -> None:
    """PyTorch's momentum 0.1 is 0.9 here."""
    x = jnp.full((4, 2, 2, 1), 10.0)
    variables = Normal("batch").init(jax.random.key(0), x)
    _, state = Normal("batch").apply(variables, x, train=True, mutable=["batch_stats"])
    assert float(state["batch_stats"]["norm"]["mean"][0]) == pytest.approx(1.0)

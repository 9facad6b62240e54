"""Rectifiers and initialisers: known values, gains, 30 layers that neither die nor explode."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.layers.activations import ACTIVATIONS, PReLU, he_gain

DEPTH, WIDTH = 30, 256
PLAIN = [name for name in ACTIVATIONS if not name.startswith("prelu")]


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("relu", [-2.0, 0.0, 3.0], [0.0, 0.0, 3.0]),
        ("leaky_relu", [-2.0, 0.0, 3.0], [-0.02, 0.0, 3.0]),
        ("elu", [-1.0, 0.0, 3.0], [np.exp(-1) - 1, 0.0, 3.0]),
        ("gelu", [-1.0, 0.0, 1.0], [-0.1588, 0.0, 0.8412]),
        ("tanh", [-1.0, 0.0, 1.0], [-np.tanh(1), 0.0, np.tanh(1)]),
        ("scaled_tanh", [-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]),
        ("identity", [-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]),
    ],
)
def test_values(name: str, x: list[float], y: list[float]) -> None:
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.array(x)), y, atol=1e-4)


@pytest.mark.parametrize(("share", "count"), [("channel", 3), ("layer", 1)])
def test_prelu(share: str, count: int) -> None:
    x = jnp.array([[-4.0, 2.0, -1.0], [1.0, -8.0, 0.0]])
    layer = PReLU(share)
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["slope"].shape == (count,)
    np.testing.assert_array_equal(layer.apply(variables, x), np.where(x > 0, x, 0.25 * x))
    grads = jax.grad(lambda v: jnp.sum(layer.apply(v, x)))(variables)["params"]["slope"]
    expected = np.minimum(x, 0).sum(axis=0) if count == 3 else np.minimum(x, 0).sum(keepdims=True)
    np.testing.assert_array_equal(grads, expected.reshape(count))


def test_he_gain_accounts_for_the_slope() -> None:
    assert he_gain(0.0) == 2.0
    assert he_gain(1.0) == 1.0  # no rectification
    assert ACTIVATIONS["prelu"].gain == pytest.approx(2 / (1 + 0.25**2))


@pytest.mark.parametrize("name", PLAIN)
def test_gain_is_one_over_the_second_moment(name: str) -> None:
    """gain = 1 / E[f(z)^2] for z ~ N(0, 1), here by quadrature."""
    z = np.linspace(-10, 10, 200_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    y = np.asarray(ACTIVATIONS[name](jnp.asarray(z, jnp.float32)), np.float64)
    moment = np.sum(y**2 * density) * (z[1] - z[0])
    assert ACTIVATIONS[name].gain == pytest.approx(1 / moment, rel=1e-3)


def deviations(name: str, gain: float, layers: int = DEPTH) -> list[float]:
    """Return the deviation of the pre-activations in `layers` layers of Var[w] = gain / fan-in."""
    rng = np.random.default_rng(0)
    x, found = rng.standard_normal((64, WIDTH)).astype(np.float32), []
    for _ in range(layers):
        w = rng.standard_normal((WIDTH, WIDTH)) * np.sqrt(gain / WIDTH)
        z = x @ w.astype(np.float32)
        found.append(float(z.std()) / np.sqrt(gain))
        x = np.where(z > 0, z, 0.25 * z) if "prelu" in name else np.asarray(ACTIVATIONS[name](z))
    return found


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_variance_through_thirty_layers(name: str) -> None:
    """GELU is no rectifier: it halves large variances and quarters small ones, so that no gain is a
    stable point and what width 256 leaves to chance grows by 7 % a layer."""
    found = deviations(name, ACTIVATIONS[name].gain)
    reach = 10.0 if name == "gelu" else 2.5
    assert min(found) > 1 / reach and max(found) < reach, found


@pytest.mark.parametrize(("gain", "dies"), [(1.0, True), (4.0, False)])
def test_wrong_gains_are_seen(gain: float, dies: bool) -> None:
    """Xavier's gain of 1 halves a rectifier's variance in each layer: 2^-15 of the deviation."""
    last = deviations("relu", gain)[-1]
    assert (last < 1e-3) if dies else (last > 1e3)


def test_initializer_has_the_gain() -> None:
    for name in ("relu", "prelu"):
        draw = ACTIVATIONS[name].initializer()
        w = np.asarray(draw(jax.random.key(0), (3, 3, 64, 64), jnp.float32))
        assert w.var() * 9 * 64 == pytest.approx(ACTIVATIONS[name].gain, rel=0.03)

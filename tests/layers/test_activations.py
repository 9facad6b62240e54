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
        x = apply(name, z)
    return found


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "gelu"])
def test_variance_through_thirty_layers(name: str) -> None:
    found = deviations(name, ACTIVATIONS[name].gain)
    assert min(found) > 1 / 2.5 and max(found) < 2.5, found


def apply(name: str, z: np.ndarray) -> np.ndarray:
    return np.where(z > 0, z, 0.25 * z) if "prelu" in name else np.asarray(ACTIVATIONS[name](z))


Z = np.linspace(-10, 10, 200_001)
DENSITY = np.exp(-(Z**2) / 2) / np.sqrt(2 * np.pi) * (Z[1] - Z[0])


def moment(name: str, q: float, power: int = 2) -> float:
    """Return E[f(z)^power] for z ~ N(0, q), by quadrature."""
    y = apply(name, (Z * np.sqrt(q)).astype(np.float32)).astype(np.float64)
    return float(np.sum(y**power * DENSITY))


def growth(name: str) -> float:
    """Return by what a small deviation of the variance from 1 is multiplied in a layer."""
    return ACTIVATIONS[name].gain * (moment(name, 1.05) - moment(name, 0.95)) / 0.1


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_variance_through_thirty_layers_of_any_width(name: str) -> None:
    """Without chance, as at infinite width, every gain keeps the variance, GELU's among them."""
    q, found = 1.0, []
    for _ in range(DEPTH):
        q = ACTIVATIONS[name].gain * moment(name, q)
        found.append(q)
    assert min(found) > 0.97 and max(found) < 1.03, found


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_variance_through_thirty_layers_by_chance(name: str) -> None:
    """What N units leave to chance is of variance (E f^4 / (E f^2)^2 - 1) / N, times the growth.

    For one input the pre-activations of a layer are independent normal values of the variance that
    the layer before decides, so a layer of 2^17 units needs no matrix. The bound is 3 sigma.
    """
    units, r = 2**17, growth(name)
    chance = (moment(name, 1.0, 4) / moment(name, 1.0) ** 2 - 1) / units
    sigma = np.sqrt(chance * sum(r ** (2 * k) for k in range(DEPTH)))
    rng, q, found = np.random.default_rng(0), 1.0, []
    for _ in range(DEPTH):
        z = rng.standard_normal(units, dtype=np.float32) * np.float32(np.sqrt(q))
        q = ACTIVATIONS[name].gain * float(np.mean(np.square(apply(name, z), dtype=np.float64)))
        found.append(np.log(q))
    assert np.abs(found).max() < 3 * sigma, (found, sigma)
    assert (sigma < 0.05) == (name != "gelu")


def test_what_grows() -> None:
    """Rectifiers keep any variance, tanh pulls towards 1, GELU alone drives away from it."""
    assert growth("relu") == pytest.approx(1.0, abs=1e-3)
    assert growth("tanh") < 0.8
    assert growth("gelu") == pytest.approx(1.144, abs=0.003)
    assert max(growth(name) for name in ACTIVATIONS if name != "gelu") < 1.01


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

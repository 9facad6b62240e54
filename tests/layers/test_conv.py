"""layers.Conv as a drop-in for flax.linen.Conv: fields, variables, initial values, results."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.layers.conv import Conv

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 9, 8, 4))

SHARED = [
    {"features": 6, "kernel_size": (3, 3)},
    {"features": 6, "kernel_size": (5, 2), "strides": 2},
    {"features": 6, "kernel_size": (3, 3), "strides": (2, 1), "padding": "VALID"},
    {"features": 6, "kernel_size": (3, 3), "padding": "CIRCULAR", "kernel_dilation": 2},
    {"features": 6, "kernel_size": (3, 3), "padding": "REFLECT"},
    {"features": 6, "kernel_size": (3, 3), "padding": ((1, 0), (2, 3))},
    {"features": 6, "kernel_size": (3, 3), "padding": 1},
    {"features": 6, "kernel_size": (3, 3), "padding": (1, 2)},
    {"features": 8, "kernel_size": (3, 3), "feature_group_count": 2},
    {"features": 4, "kernel_size": (3, 3), "feature_group_count": 4, "use_bias": False},
    {"features": 6, "kernel_size": (3, 3), "strides": None, "kernel_dilation": None},
    {"features": 6, "kernel_size": (3, 3), "dtype": jnp.bfloat16},
    {
        "features": 6,
        "kernel_size": (1, 1),
        "param_dtype": jnp.bfloat16,
        "kernel_init": nn.initializers.he_uniform(),
        "bias_init": nn.initializers.normal(),
    },
]


@pytest.mark.parametrize("fields", SHARED, ids=lambda fields: ",".join(fields))
def test_same_variables_and_numbers_as_flax(fields):
    flax, ours = nn.Conv(**fields), Conv(**fields)
    want, got = flax.init(KEY, X), ours.init(KEY, X)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    y, expected = ours.apply(got, X), flax.apply(want, X)
    assert y.dtype == expected.dtype and y.shape == expected.shape
    # The forms of grouped convolutions sum in another order.
    tolerance = 2e-6 if fields.get("feature_group_count", 1) > 1 else 0
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


def test_fields_are_flax_fields_with_flax_defaults():
    flax = {field.name: field.default for field in dataclasses.fields(nn.Conv)}
    ours = {field.name: field.default for field in dataclasses.fields(Conv)}
    shared = [name for name in ours if not name.endswith("_init")]
    assert set(ours) <= set(flax)
    assert {name: ours[name] for name in shared} == {name: flax[name] for name in shared}


def test_leading_axes_and_inside_a_model():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Conv(3, 3, padding="EDGE")(nn.relu(Conv(5, (3, 3), strides=2)(x)))

    variables = Net().init(KEY, X)
    assert {*variables["params"]} == {"Conv_0", "Conv_1"}
    y = Net().apply(variables, X)
    np.testing.assert_allclose(Net().apply(variables, X[0]), y[0], rtol=1e-6, atol=1e-6)
    stacked = Net().apply(variables, jnp.stack([X, X + 1]))
    np.testing.assert_allclose(stacked[0], y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "x", "error", "text"),
    [
        ({"kernel_size": (3, 3, 3)}, X, ValueError, "kernel_size: expected an int >= 1 or two"),
        ({"strides": 0}, X, ValueError, "strides: expected an int >= 1 or two"),
        ({"kernel_dilation": 0}, X, ValueError, "kernel_dilation: expected"),
        ({"features": 0}, X, ValueError, "features: expected an int >= 1, got 0"),
        ({"features": 2.0}, X, TypeError, "features: expected an int >= 1, got 2.0"),
        ({"feature_group_count": 3}, X, ValueError, "feature_group_count: expected a divisor of 4"),
        ({"feature_group_count": 0}, X, ValueError, "feature_group_count: expected an int >= 1"),
        ({"padding": "CAUSAL"}, X, ValueError, "padding: unknown name 'CAUSAL'"),
        ({}, X[0, 0], ValueError, "x: expected"),
        ({}, X.astype(int), TypeError, "x: expected floating values"),
    ],
)
def test_bad_input(fields, x, error, text):
    with pytest.raises(error, match=text):
        Conv(**{"features": 6, "kernel_size": (3, 3), **fields}).init(KEY, x)

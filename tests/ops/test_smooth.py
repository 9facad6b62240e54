"""Window rules with a slope: the derivatives JAX finds from the K stacked values, and memory."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import windows
from cnnjax.ops.fusion import unfused
from cnnjax.ops.means import LogMeanExp, PowerMean, SoftMean
from cnnjax.ops.smooth import (
    AT_ONCE,
    _one_by_one,
    _slope_by_slope,
    _slope_spread,
    _statistics,
    windowed,
)

RULES = [
    PowerMean(3.0, 4), PowerMean(2.5, 1), LogMeanExp(4.0, 9), SoftMean(1.0), SoftMean(-3.0),
    PowerMean(2.0, 9),
]  # fmt: skip
PLACES = [((3, 3), (1, 1)), ((3, 2), (2, 3)), ((2, 2), (3, 3)), ((7, 7), (2, 2))]
CASES = [(rule, PLACES[i % 3]) for i, rule in enumerate(RULES)] + [(RULES[3], PLACES[3])]
SOME = [*CASES[:3], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[3:])]


def stacked(x, rule, *, window, stride):
    return rule.statistics(windows.stacked(x, window=window, stride=stride))[0]


@pytest.mark.parametrize(("rule", "place"), SOME, ids=str)
def test_derivatives_of_order_one_and_two_are_those_of_the_stacked_values(rule, place):
    window, stride = place

    with jax.enable_x64(True):
        x = jax.random.uniform(jax.random.key(0), (2, 9, 8, 3), jnp.float64, 0.1, 2.0)
        v = jax.random.normal(jax.random.key(1), x.shape, jnp.float64)

        def curved(pool, x):
            return jnp.sum(jnp.sin(pool(x, rule, window=window, stride=stride)))

        @functools.partial(jax.jit, static_argnums=0)
        def both(pool):
            first = jax.grad(functools.partial(curved, pool))
            return [*jax.jvp(first, (x,), (v,)), jax.grad(lambda x: jnp.vdot(first(x), v))(x)]

        for ours, derived in zip(both(windowed), both(stacked), strict=True):
            np.testing.assert_allclose(ours, derived, rtol=1e-10, atol=1e-12)


def test_windows_of_infinite_values_give_their_value_and_no_nan_to_their_neighbours():
    x = jnp.ones((1, 4, 8, 1)).at[:, :, :2].set(-jnp.inf)
    y, pull = jax.vjp(lambda x: windowed(x, SoftMean(1.0), window=(2, 2), stride=(2, 2)), x)
    np.testing.assert_array_equal(y[0, :, 0, 0], -jnp.inf)
    np.testing.assert_allclose(pull(jnp.ones_like(y))[0][0, :, 2:, 0], 0.25, rtol=1e-6)


@pytest.mark.parametrize("rule", [SoftMean(1.0), LogMeanExp(1.0, 9), PowerMean(30.0, 9)], ids=str)
def test_a_huge_pixel_stays_out_of_windows_that_do_not_cover_it(rule):
    """Its slope there would be infinite: the gather reads such windows, and must not count them."""
    x = jnp.full((1, 3, 9, 1), 1e-3).at[0, 0, 3].set(300.0)  # the window of 0 to 2 is read for it

    def total(pool, x):
        return jnp.sum(pool(x, rule, window=(3, 3), stride=(2, 2)) ** 2)

    for derivative in (jax.grad, jax.hessian, lambda f: jax.jacrev(jax.grad(f))):
        programs = (jax.jit(derivative(functools.partial(total, f))) for f in (windowed, stacked))
        ours, derived = (program(x) for program in programs)
        np.testing.assert_allclose(ours, derived, rtol=1e-4, atol=1e-5)
        assert jnp.isfinite(ours).all()


@pytest.mark.parametrize("rule", [SoftMean(1.0), SoftMean(-3.0), PowerMean(3.0, 9)], ids=str)
@pytest.mark.parametrize("window", [(3, 3), (4, 3)], ids=str)
def test_statistics_found_in_one_loop_are_those_found_one_by_one(window, rule):
    assert 9 <= AT_ONCE < 12
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 3)) * 40
    x = x.at[0, 0].set(-jnp.inf).at[0, 5, 5, 0].set(jnp.nan).at[1, 7, 7].set(jnp.inf)
    got, want = (
        jax.jit(functools.partial(form, rule, window, (2, 2)))(x)
        for form in (_statistics, _one_by_one)
    )
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-12])
@pytest.mark.parametrize(("window", "stride"), [*PLACES[:3], ((5, 5), (2, 2))], ids=str)
def test_factors_as_a_gpu_takes_them_give_the_slopes_of_a_cpu(window, stride, scale):
    x = jax.random.normal(jax.random.key(0), (2, 15, 17, 3)) * scale
    x = x.at[0, :6].set(0).at[0, 9, 9, 1].set(jnp.inf).at[1, 3, 3, 0].set(jnp.nan)
    x = x.at[1, 10:].multiply(1e-20)
    static = {"rule": PowerMean(2.0, 4), "window": window, "stride": stride}
    y = windowed(x, **static)
    g = jax.random.normal(jax.random.key(1), y.shape)
    slopes = _slope_by_slope(g, x, y, **static)
    np.testing.assert_allclose(_slope_spread(g, x, y, **static), slopes, rtol=1e-5, atol=2e-6)
    assert np.isfinite(slopes).all()


def test_factors_of_tiny_windows_stay_finite():
    x, static = jnp.full((1, 4, 4, 1), 2e-38), {"window": (2, 2), "stride": (1, 1)}
    rule = PowerMean(2.0, 4)
    g = jnp.full((1, 3, 3, 1), 1e3)
    y = windowed(x, rule, **static)
    assert y.min() > 0 and np.isfinite(_slope_spread(g, x, y, rule=rule, **static)).all()


def test_training_keeps_no_map_a_tap():
    x = jnp.zeros((4, 32, 32, 16))

    def step(x):
        return jax.grad(lambda x: windowed(x, SoftMean(1.0), window=(3, 3), stride=(1, 1)).sum())(x)

    used = jax.jit(step).lower(x).compile().memory_analysis().temp_size_in_bytes
    assert used < 6 * x.nbytes


def test_unfused_is_the_identity_also_for_empty_batches_and_in_all_modes():
    x = jnp.asarray([[-0.0, jnp.nan], [jnp.inf, 2.0]])
    np.testing.assert_array_equal(np.signbit(unfused(x)), np.signbit(x))
    np.testing.assert_array_equal(jax.vmap(unfused)(x), x)
    assert unfused(jnp.zeros((0, 3))).shape == (0, 3)
    value, tangent = jax.jvp(lambda x: unfused(x) ** 2, (jnp.float32(3),), (jnp.float32(1),))
    assert (value, tangent) == (9, 6)
    assert jax.hessian(lambda x: unfused(x) ** 3)(2.0) == 12

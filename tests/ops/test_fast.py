"""The fast max, min, sum, mean and blur against XLA's own: values, gradients, ties, NaN."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from cnnjax.ops import antialias, local, means
from cnnjax.ops import padding as pads
from cnnjax.ops.coverage import UNROLLED
from cnnjax.ops.extreme import _gathered, _gathered_by_axis, _noted, _scattered
from cnnjax.ops.weighted import weighted

WINDOWS = [
    ((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 3), (1, 1)), ((5, 5), (2, 2)), ((3, 2), (1, 3)),
    ((1, 1), (2, 2)), ((2, 3), (4, 5)), ((1, 4), (3, 1)), ((7, 7), (2, 3)), ((9, 7), (5, 4)),
    ((12, 11), (11, 12)), ((13, 12), (1, 1)),
]  # fmt: skip
ON_CPU = jax.default_backend() == "cpu"


def long(*values):
    return pytest.param(*values, marks=[pytest.mark.slow, pytest.mark.long])


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def reference(name: str, window, stride):
    """XLA's form on a padded map: its gradient is select-and-scatter, or a reduce-window."""
    start, combine = {
        "max": (-jnp.inf, lax.max), "min": (jnp.inf, lax.min), "sum": (0.0, lax.add)
    }[name]  # fmt: skip

    def pool(x):
        dimensions, strides = ((1, *pair, 1) for pair in (window, stride))
        return lax.reduce_window(
            x, np.asarray(start, x.dtype), combine, dimensions, strides, "VALID"
        )

    return pool


OURS = {"max": local.maximum, "min": local.minimum, "sum": local.total}


def fast(name, window, stride, padding="VALID"):
    return functools.partial(OURS[name], window=window, stride=stride, padding=padding)


def values_and_gradient(function, x, g):
    y, pull = jax.vjp(function, x)
    return y, pull(g)[0]


def inputs(kind: str) -> jax.Array:
    rng = np.random.default_rng(0)
    shape = (2, 13, 12, 3)
    floats = rng.standard_normal(shape)
    return jnp.asarray(
        {
            "floats": floats,
            "ties": rng.integers(0, 3, shape),
            "rectified": np.maximum(floats, 0),
            "infinite": np.full(shape, -np.inf),
            "infinities": np.where(floats > 0, np.inf, -np.inf),
            "one not a number": np.where(
                np.arange(936).reshape(shape) % 400 == 200, np.nan, floats
            ),
        }[kind],
        "float32",
    )


KINDS = ["floats", "ties", "rectified", "infinite", "infinities", "one not a number"]


@pytest.mark.parametrize(("window", "stride"), WINDOWS, ids=str)
@pytest.mark.parametrize("name", ["max", slow("min")])
def test_extremes_have_the_values_and_gradients_of_xla(name, window, stride):
    x = jnp.concatenate([inputs(kind) for kind in KINDS])
    theirs, ours = reference(name, window, stride), fast(name, window, stride)
    g = jax.random.normal(jax.random.key(1), jax.eval_shape(theirs, x).shape)
    want = jax.jit(functools.partial(values_and_gradient, theirs))(x, g)
    got = jax.jit(functools.partial(values_and_gradient, ours))(x, g)
    for position, kind in enumerate(KINDS):
        images = slice(2 * position, 2 * position + 2)
        if kind == "one not a number":
            # XLA drops some of these under jit, where windows do not overlap; here none is lost.
            bad = np.asarray(reference("sum", window, stride)(x[images] * 0)) != 0
            np.testing.assert_array_equal(np.isnan(got[0][images]), bad)
        else:
            np.testing.assert_array_equal(got[0][images], want[0][images], err_msg=kind)
        if kind != "one not a number" or window[0] * window[1] <= UNROLLED:
            # The order in which a GPU adds is not ours to know.
            error = 0 if ON_CPU else 1e-5
            np.testing.assert_allclose(
                got[1][images], want[1][images], rtol=error, atol=error, err_msg=kind
            )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("window", "stride"), [((3, 3), (1, 1)), ((4, 3), (2, 3)), ((5, 5), (1, 1))], ids=str
)
def test_half_precision_is_compared_and_summed_in_single(window, stride, dtype):
    """What float32 gives for the same numbers, rounded once."""
    pool, x = fast("max", window, stride), inputs("floats").astype(dtype)
    g = jax.random.normal(jax.random.key(1), jax.eval_shape(pool, x).shape, dtype)
    want = jax.jit(functools.partial(values_and_gradient, pool))(
        x.astype("float32"), g.astype("float32")
    )
    got = jax.jit(functools.partial(values_and_gradient, pool))(x, g)
    error = 0 if ON_CPU else 2e-2  # a GPU rounds rows, then columns
    for mine, wide in zip(got, want, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(
            mine.astype("float32"), wide.astype(dtype).astype("float32"), rtol=error, atol=error
        )


@pytest.mark.parametrize("window", [(2, 2), (5, 4)])
@pytest.mark.parametrize("name", ["max", "min"])
def test_of_zeros_of_both_signs_the_first_is_the_value(name, window):
    pool = fast(name, window, (1, 1))
    x = jnp.asarray(np.random.default_rng(0).choice([-0.0, 0.0], (1, 9, 8, 2)), "float32")
    first = np.signbit(x[:, : 10 - window[0], : 9 - window[1]])
    with_gradient, _ = jax.vjp(pool, x)
    for y in (pool(x), with_gradient):
        np.testing.assert_array_equal(np.signbit(y), first)


@pytest.mark.slow
@pytest.mark.parametrize(("window", "stride"), WINDOWS, ids=str)
@pytest.mark.parametrize("name", ["sum", slow("mean"), "blur"])
def test_sums_have_the_values_and_gradients_of_xla(name, window, stride):
    x = jnp.asarray(np.random.default_rng(0).integers(-8, 9, (2, 13, 12, 3)), "float32")
    if name == "blur":
        size = window[0] % 7 + 1
        weights = jnp.asarray(np.outer(*[antialias.binomial(size)] * 2), "float32")
        kernel = jnp.tile(weights[:, :, None, None], (1, 1, 1, 3))

        def theirs(x):
            return lax.conv_general_dilated(
                x, kernel, stride, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=3,
            )  # fmt: skip

        ours = functools.partial(antialias.blur, stride=stride, filter_size=size)
    elif name == "mean":
        theirs = functools.partial(nn.avg_pool, window_shape=window, strides=stride)
        ours = functools.partial(local.mean, window=window, stride=stride)
    else:
        theirs, ours = reference(name, window, stride), fast(name, window, stride)
    shape = jax.eval_shape(theirs, x).shape
    g = jnp.asarray(np.random.default_rng(1).integers(-8, 9, shape), "float32")
    want, got = values_and_gradient(theirs, x, g), values_and_gradient(ours, x, g)
    # A mean divides; the others only add and multiply by dyadic numbers, exactly.
    tolerance = 1e-6 if name == "mean" else 0
    np.testing.assert_allclose(got[0], want[0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(got[1], want[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("window", "stride"), [((3, 3), (2, 2)), ((4, 5), (3, 3))], ids=str)
@pytest.mark.parametrize("pool", [local.maximum, local.mean, means.lp, means.softpool])
def test_an_infinite_gradient_stays_within_its_window(pool, window, stride):
    """Nothing is multiplied by 0 where a window does not reach: that would be not a number."""
    x = inputs("floats")
    y, pull = jax.vjp(functools.partial(pool, window=window, stride=stride), x)
    finite, infinite = (pull(jnp.ones_like(y).at[0, 1, 2].set(g))[0] for g in (1, jnp.inf))
    (kh, kw), (sh, sw) = window, stride
    apart = np.ones(x.shape, bool)
    apart[0, sh : sh + kh, 2 * sw : 2 * sw + kw] = False
    np.testing.assert_array_equal(infinite[apart], finite[apart])
    assert not np.isfinite(infinite[~apart]).all()


@pytest.mark.slow
@pytest.mark.parametrize("padding", [*pads.PADDINGS, ((2, 0), (0, 3))], ids=str)
@pytest.mark.parametrize("name", ["max", "min", "sum"])
def test_every_padding(name, padding):
    window, stride = (3, 4), (2, 3)
    x = inputs("ties")
    fill = {"max": -jnp.inf, "min": jnp.inf, "sum": 0.0}[name]

    def theirs(x):
        x = pads.pad(x, window=window, stride=stride, padding=padding, fill=fill)
        return reference(name, window, stride)(x)

    g = jnp.asarray(np.random.default_rng(1).integers(-8, 9, jax.eval_shape(theirs, x).shape), "f4")
    want = values_and_gradient(theirs, x, g)
    got = values_and_gradient(fast(name, window, stride, padding), x, g)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.slow
@pytest.mark.parametrize("window", [(12, 11), (128, 1), (60, 3), long((50, 40))], ids=str)
def test_windows_of_many_taps(window):
    """127 taps are the most that one byte numbers; a window of the whole map is a global pool."""
    size = max(window[0], 12), max(window[1], 12)
    x = jax.random.normal(jax.random.key(0), (1, *size, 2))
    for stride in ((1, 1), window):
        theirs, ours = reference("max", window, stride), fast("max", window, stride)
        g = jax.random.normal(jax.random.key(1), jax.eval_shape(theirs, x).shape)
        want, got = (
            jax.jit(functools.partial(values_and_gradient, f))(x, g) for f in (theirs, ours)
        )
        np.testing.assert_array_equal(got[0], want[0])
        np.testing.assert_allclose(got[1], want[1], rtol=1e-6, atol=1e-6)
    _, index = _noted(window, (1, 1), True, x)
    assert index.dtype == (jnp.int8 if window[0] * window[1] < 128 else index.dtype)
    assert int(index.max()) < window[0] * window[1] and int(index.min()) >= 0


@pytest.mark.parametrize("name", ["max", "sum"])
def test_more_windows_over_a_pixel_than_are_gathered(name):
    x = jax.random.normal(jax.random.key(0), (1, 24, 24, 1))
    theirs, ours = (make(name, (18, 18), (1, 1)) for make in (reference, fast))
    g = jax.random.normal(jax.random.key(1), jax.eval_shape(theirs, x).shape)
    want, got = values_and_gradient(theirs, x, g), values_and_gradient(ours, x, g)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "stride"), [*WINDOWS[1:5], *(long(*sizes) for sizes in WINDOWS[5:])], ids=str
)
def test_gathering_by_axis_gives_what_every_window_gives(window, stride):
    x = jnp.round(jax.random.normal(jax.random.key(0), (2, 17, 19, 3)) * 2)  # with ties
    x = x.at[0, 4, 5].set(jnp.nan)
    _, index = _noted(window, stride, True, x)
    g = jnp.round(jax.random.normal(jax.random.key(1), index.shape) * 8)  # sums are exact
    static = {"window": window, "stride": stride, "size": (17, 19)}
    at_once = _gathered(g, index, **static)
    for form in (_gathered_by_axis, _scattered):
        np.testing.assert_array_equal(form(g, index, **static), at_once)


@pytest.mark.parametrize(
    ("rows", "columns", "stride"),
    [
        ((1, 2, 3), (5, 7), (3, 2)),  # side by side
        ((1, 2, 3), (5, 7), (2, 1)),  # one sum
        ((1, 2, 3, 4, 5), (5, 7, 11, 13), (1, 1)),  # an axis at a time
        ((1, 2, 3, 4, 5, 6, 7), (5, 7, 11, 13, 17, 19), (2, 1)),  # forward too
    ],
    ids=str,
)
def test_weights_that_differ_at_every_tap(rows, columns, stride):
    x = jnp.asarray(np.random.default_rng(0).integers(-4, 5, (2, 13, 12, 2)), "float32")
    window = len(rows), len(columns)

    def theirs(x):
        weights = [float(a * b) for a in rows for b in columns]
        taps = pads.taps(x, window=window, stride=stride)
        return sum(w * tap for w, tap in zip(weights, taps, strict=True))

    ours = functools.partial(weighted, rows=rows, columns=columns, stride=stride)
    g = jnp.asarray(np.random.default_rng(1).integers(-4, 5, theirs(x).shape), "float32")
    want, got = values_and_gradient(theirs, x, g), values_and_gradient(ours, x, g)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


def test_long_rows_of_weights():
    """Forty taps at stride 3: up to fourteen outputs over a pixel."""
    rows = tuple(float(k % 7 - 3) for k in range(40))
    x = jnp.asarray(np.random.default_rng(0).integers(-4, 5, (2, 53, 3, 2)), "float32")

    def theirs(x):
        return sum(w * x[:, i : i + 13 : 3] for i, w in enumerate(rows))

    g = jnp.asarray(np.random.default_rng(1).integers(-4, 5, (2, 5, 3, 2)), "float32")
    ours = functools.partial(weighted, rows=rows, columns=(1.0,), stride=(3, 1))
    want, got = values_and_gradient(theirs, x, g), values_and_gradient(ours, x, g)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


FUNCTIONS = {
    "max": lambda x: local.maximum(x, window=(3, 3), stride=(2, 2), padding="ZEROS"),
    "max of 49 taps": lambda x: local.maximum(x, window=(7, 7), stride=(2, 2), padding="SAME"),
    "mean": lambda x: local.mean(x, window=(3, 2), stride=(1, 2)),
    "blur": lambda x: antialias.blur(x, stride=(2, 1), filter_size=4, padding="CIRCULAR"),
    "wide": lambda x: weighted(x, rows=(0.5,) * 7, columns=(1, 2, 3, 4, 5, 6.0), stride=(2, 2)),
}
SMALL = jax.random.normal(jax.random.key(0), (1, 8, 7, 1))


@pytest.mark.parametrize("name", [n if n in ("max", "mean") else slow(n) for n in FUNCTIONS])
def test_derivatives_of_every_mode_and_order(name):
    function = FUNCTIONS[name]
    with jax.enable_x64(True):
        x = SMALL.astype("float64")
        pooled = jax.jit(function)
        # The sine apart: of a maximum over 49 taps XLA for GPU (jax 0.11.2) returns float64 sines
        # that are off by 1e-6 where both are one program.
        check_grads(lambda x: jnp.sin(pooled(x)), (x,), 2, ("fwd", "rev"), 1e-5, 1e-5, 1e-6)

    def loss(x):
        return jnp.sum(function(x) ** 3)

    forward, backward = (jax.jit(f(function))(SMALL) for f in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, backward, rtol=1e-6, atol=1e-6)
    curvature = [jax.jit(f(jax.grad(loss)))(SMALL) for f in (jax.jacfwd, jax.jacrev)]
    np.testing.assert_allclose(*curvature, rtol=1e-4, atol=1e-4)


LOOPS = {
    "jit": lambda f, x: jax.jit(f)(x),
    "jit with donation": lambda f, x: jax.jit(f, donate_argnums=0)(x + 0),
    "vmap": lambda f, x: jax.vmap(f)(x[None])[0],
    "vmap over the last axis": lambda f, x: jax.vmap(f, 4, 4)(x[..., None])[..., 0],
    "vmap of vmap": lambda f, x: jax.vmap(jax.vmap(f))(x[None, None])[0, 0],
    "scan": lambda f, x: lax.scan(lambda c, x: (c, f(x)), 0, x[None])[1][0],
    "map": lambda f, x: lax.map(f, x[None])[0],
    "cond": lambda f, x: lax.cond(True, f, lambda x: x, x),
    "remat": lambda f, x: jax.checkpoint(f)(x),
}


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ["max", slow("max of 49 taps"), slow("blur")])
def test_inside_transformations(name, loop):
    function = FUNCTIONS[name]

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(function(x))))(x)

    want = gradient(SMALL)
    np.testing.assert_allclose(LOOPS[loop](gradient, SMALL), want, rtol=1e-6, atol=1e-6)
    if loop not in ("cond", "jit with donation"):  # both return an array of the shape of x
        looped = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(LOOPS[loop](function, x)))))(SMALL)
        np.testing.assert_allclose(looped, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [n if n in ("max", "blur") else slow(n) for n in FUNCTIONS])
def test_leading_axes_and_dtypes(name):
    function = FUNCTIONS[name]
    stacked = jnp.stack([SMALL, SMALL + 1])
    for x in (SMALL[0], SMALL, stacked, SMALL[:0]):
        y, dx = jax.jit(lambda x: values_and_gradient(function, x, function(x)))(x)
        assert y.shape[:-3] == x.shape[:-3]
        assert dx.shape == x.shape
    np.testing.assert_array_equal(function(stacked)[0], function(SMALL))
    for dtype in ("bfloat16", "float16", "float32"):
        x = jax.ShapeDtypeStruct(SMALL.shape, dtype)
        y, dx = jax.eval_shape(lambda x: values_and_gradient(function, x, function(x)), x)
        assert y.dtype == dx.dtype == dtype


@pytest.mark.skipif(not ON_CPU, reason="needs two devices")
def test_sharded_over_devices():
    """The same gradient under `shard_map`, which checks what varies over the mesh."""
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    x = jnp.concatenate([SMALL, SMALL + 1])

    def loss(x):
        return jnp.sum(FUNCTIONS["max"](x) ** 2) + jnp.sum(FUNCTIONS["blur"](x) ** 2)

    spread = jax.shard_map(
        lambda x: jax.grad(loss)(x),
        mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"),
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(spread)(x), jax.grad(loss)(x), rtol=1e-6)


def test_the_backward_pass_keeps_one_byte_a_window():
    x = jnp.ones((4, 16, 16, 8))
    _, pull = jax.vjp(FUNCTIONS["max"], x)
    kept = [leaf for leaf in jax.tree.leaves(pull) if hasattr(leaf, "nbytes") and leaf.ndim]
    assert sum(leaf.nbytes for leaf in kept) <= 4 * 8 * 8 * 8

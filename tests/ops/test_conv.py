"""ops.conv against XLA's own convolution: values, every derivative, every rule of padding."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from cnnjax.ops import padding as pads
from cnnjax.ops.conv import conv

LAYOUT = ("NHWC", "HWIO", "NHWC")


def whole(shape: tuple[int, ...], seed: int = 0, dtype: str = "float32") -> jax.Array:
    """Small whole numbers: sums of their products are exact in float32, so `==` holds."""
    return jnp.asarray(np.random.default_rng(seed).integers(-4, 5, shape), dtype)


def reference(x, kernel, *, stride=(1, 1), padding="SAME", dilation=(1, 1), groups=1):
    """XLA's convolution of a map that is padded beforehand."""
    window = tuple((k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True))
    x = pads.pad(x, window=window, stride=stride, padding=padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        "VALID",
        rhs_dilation=dilation,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def derivatives(function, x, kernel, g):
    y, pull = jax.vjp(function, x, kernel)
    tangent = jax.jvp(function, (x, kernel), (x + 1, kernel - 1))[1]
    return [y, *pull(g), tangent]


CASES = [
    {"size": (7, 6), "channels": 3, "features": 4, "kernel": (3, 3)},
    {"size": (7, 6), "channels": 3, "features": 4, "kernel": (3, 2), "stride": (2, 3)},
    {"size": (8, 9), "channels": 2, "features": 4, "kernel": (5, 3), "dilation": (1, 2)},
    {
        "size": (11, 9),
        "channels": 2,
        "features": 4,
        "kernel": (3, 2),
        "stride": (3, 2),
        "dilation": (2, 3),
    },
    {"size": (9, 8), "channels": 3, "features": 8, "kernel": (3, 3), "stride": (2, 1)},
    {"size": (9, 8), "channels": 3, "features": 9, "kernel": (2, 3), "dilation": (1, 2)},
    {"size": (6, 5), "channels": 3, "features": 2, "kernel": (1, 1)},
    {"size": (9, 8), "channels": 16, "features": 20, "kernel": (3, 2)},
    {"size": (11, 9), "channels": 18, "features": 20, "kernel": (3, 3), "stride": (2, 3)},
    {"size": (11, 9), "channels": 16, "features": 20, "kernel": (2, 3), "dilation": (2, 1)},
    {"size": (6, 5), "channels": 18, "features": 20, "kernel": (1, 1), "stride": (2, 1)},
    {"size": (8, 7), "channels": 1, "features": 3, "kernel": (3, 2), "stride": (1, 2)},
    {"size": (8, 7), "channels": 1, "features": 20, "kernel": (3, 3), "dilation": (2, 1)},
    {"size": (6, 5), "channels": 3, "features": 2, "kernel": (1, 1), "stride": (2, 2)},
    {"size": (7, 6), "channels": 4, "features": 6, "kernel": (3, 3), "groups": 2},
    {"size": (7, 6), "channels": 4, "features": 4, "kernel": (3, 3), "groups": 4},
    {"size": (7, 6), "channels": 3, "features": 6, "kernel": (3, 2), "groups": 3, "stride": (2, 1)},
    {
        "size": (9, 9),
        "channels": 4,
        "features": 4,
        "kernel": (3, 3),
        "groups": 4,
        "dilation": (2, 1),
        "stride": (2, 3),
    },
    {"size": (5, 5), "channels": 80, "features": 80, "kernel": (3, 3), "groups": 40},
]


PADDINGS = [*pads.PADDINGS, ((0, 2), (3, 1)), ((9, 0), (0, 9))]
CELLS = [(case, "SAME") for case in CASES] + [(CASES[3], p) for p in PADDINGS]
CELLS += [
    pytest.param(
        CASES[i], p, marks=[pytest.mark.slow, *([] if i in (2, 11) else [pytest.mark.long])]
    )
    for i in (2, 4, 8, 9, 11, 16)
    for p in PADDINGS
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "padding"), CELLS, ids=str)
def test_values_and_derivatives_equal_xla(case, padding):
    case = dict(case)
    size, channels, features = (case.pop(k) for k in ("size", "channels", "features"))
    groups = case.get("groups", 1)
    x = whole((2, *size, channels))
    kernel = whole((*case.pop("kernel"), channels // groups, features), 1)

    def expected(x, kernel):
        return reference(x, kernel, padding=padding, **case)

    def ours(x, kernel):
        return conv(x, kernel, padding=padding, **case)

    g = whole(jax.eval_shape(expected, x, kernel).shape, 2)
    names = ("values", "gradient of x", "gradient of kernel", "tangent")
    results = jax.jit(lambda *a: (derivatives(ours, *a), derivatives(expected, *a)))(x, kernel, g)
    pairs = zip(*results, strict=True)
    for name, (got, want) in zip(names, pairs, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.slow
def test_second_derivatives_and_mixed_modes():
    x, kernel = whole((1, 4, 4, 2)), whole((2, 2, 2, 2), 1)

    def loss(conv):
        return lambda x, k: jnp.sum(jnp.square(conv(x, k)) * 0.5)

    for transform in (jax.hessian, lambda f, **kw: jax.jacrev(jax.jacrev(f, **kw), **kw)):
        got = transform(loss(lambda x, k: conv(x, k, stride=2)), argnums=(0, 1))(x, kernel)
        want = transform(loss(lambda x, k: reference(x, k, stride=(2, 2))), argnums=(0, 1))(
            x, kernel
        )
        jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.slow
def test_gradients_agree_with_finite_differences_in_float64():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 5, 4, 2), "float64")
        kernel = jax.random.normal(jax.random.key(1), (3, 2, 1, 4), "float64")
        for groups, stride in itertools.product((2,), ((1, 1), (2, 1))):
            check_grads(
                lambda x, k, s=stride, n=groups: jnp.sin(conv(x, k, stride=s, groups=n)),
                (x, kernel), order=2, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6,
            )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 3)], ids=str)
def test_vmap_equals_a_loop(axes):
    x, kernel = whole((2, 3, 6, 5, 2)), whole((3, 3, 2, 4, 3), 1)
    sizes = [a.shape[i] for a, i in zip((x, kernel), axes, strict=True) if i is not None]
    if axes == (1, 3):
        kernel = jnp.moveaxis(kernel, 4, 3)
    else:
        x = x[: sizes[0]]
        kernel = jnp.moveaxis(kernel, 4, 0)[:2]
    if axes[0] is None:
        x = x[0]
    if axes[1] is None:
        kernel = kernel[0]

    def value_and_gradients(x, k):
        return conv(x, k), jax.grad(lambda x, k: jnp.sum(conv(x, k) ** 2), (0, 1))(x, k)

    got = jax.vmap(value_and_gradients, axes)(x, kernel)
    outer = jax.grad(lambda x, k: jnp.sum(jax.vmap(conv, axes)(x, k) ** 2), (0, 1))(x, kernel)
    picks = [
        [a if i is None else jnp.take(a, n, i) for a, i in zip((x, kernel), axes, strict=True)]
        for n in range(3 if axes == (1, 3) else 2)
    ]
    want = jax.tree.map(lambda *rows: jnp.stack(rows), *[value_and_gradients(*p) for p in picks])
    jax.tree.map(np.testing.assert_array_equal, got, want)
    for total, rows, axis in zip(outer, want[1], axes, strict=True):
        rows = jnp.sum(rows, 0) if axis is None else jnp.moveaxis(rows, 0, axis)
        np.testing.assert_array_equal(total, rows)


@pytest.mark.slow
def test_many_mapped_kernels_take_the_other_path():
    x, kernels = whole((40, 1, 4, 4, 2)), whole((40, 2, 2, 2, 3), 1)

    def gradients(function):
        return lambda k, x: jax.grad(lambda k, x: jnp.sum(function(x, k) ** 2), (0, 1))(k, x)

    each = [gradients(reference)(k, x) for k, x in zip(kernels, x, strict=True)]
    want = jax.tree.map(lambda *rows: jnp.stack(rows), *each)
    for got in jax.vmap(gradients(conv)), gradients(jax.vmap(conv)):
        jax.tree.map(np.testing.assert_array_equal, got(kernels, x), want)


def test_leading_axes():
    x, kernel = whole((2, 3, 6, 5, 2)), whole((3, 3, 2, 4), 1)
    want = reference(x.reshape(6, 6, 5, 2), kernel).reshape(2, 3, 6, 5, 4)
    np.testing.assert_array_equal(conv(x, kernel), want)
    np.testing.assert_array_equal(conv(x[0, 0], kernel), want[0, 0])
    assert conv(x[:0], kernel).shape == (0, 3, 6, 5, 4)
    zero = jax.grad(lambda k: jnp.sum(conv(x[:0], k)))(kernel)
    np.testing.assert_array_equal(zero, jnp.zeros_like(kernel))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs two devices")
@pytest.mark.parametrize("groups", [1, 2])
def test_sharded_over_devices(groups):
    """Under `shard_map`, which adds up the gradient of what all devices share."""
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    x, kernel = whole((4, 6, 5, 2)), whole((3, 3, 2 // groups, 4), 1)

    def gradients(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(conv(x, k, groups=groups) ** 2), (0, 1))(x, kernel)

    spread = jax.shard_map(
        gradients, mesh=mesh, in_specs=(jax.P("data"), jax.P()), out_specs=(jax.P("data"), jax.P())
    )
    got, want = jax.jit(spread)(x, kernel), gradients(x, kernel)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def loss(kernel, x):
    return jnp.sum(conv(x, kernel, stride=2) ** 2)


LOOPS = {
    "scan": lambda f, k, x: lax.scan(lambda c, _: (c + f(k, x), None), 0 * k, None, 2)[0] / 2,
    "map": lambda f, k, x: lax.map(lambda x: f(k, x), x[None])[0],
    "cond": lambda f, k, x: lax.cond(x[0, 0, 0, 0] < 99, f, lambda k, x: k, k, x),
    "switch": lambda f, k, x: lax.switch(1, [lambda k, x: k, f], k, x),
    "remat": lambda f, k, x: jax.grad(jax.checkpoint(loss))(k, x),
    "jit with donation": lambda f, k, x: jax.jit(f, donate_argnums=0)(k + 0, x),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_gradient_inside_control_flow(name):
    x, kernel = whole((2, 6, 6, 2)), whole((3, 3, 2, 4), 1)
    want = jax.grad(lambda k: jnp.sum(reference(x, k, stride=(2, 2)) ** 2))(kernel)
    np.testing.assert_array_equal(LOOPS[name](jax.grad(loss), kernel, x), want)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the forms chosen for CPU")
def test_gradients_are_canonical_convolutions():
    """What makes them fast in loops on CPU: NHWC by HWIO without a layout of their own."""

    def step(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(conv(x, k) ** 2), (0, 1))(x, kernel)

    text = jax.jit(step).lower(whole((2, 6, 6, 16)), whole((3, 3, 16, 4))).as_text()
    layouts = [
        line.split("dim_numbers = ")[1] for line in text.splitlines() if "dim_numbers" in line
    ]
    assert len(layouts) >= 3
    assert all(line.startswith("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]") for line in layouts)


def test_unused_gradients_are_not_computed():
    def convolutions(argnums):
        step = jax.grad(lambda x, k: jnp.sum(conv(x, k) ** 2), argnums)
        text = jax.jit(step).lower(whole((2, 6, 6, 16)), whole((3, 3, 16, 4))).as_text()
        return text.count("stablehlo.convolution")

    assert [convolutions(a) for a in (0, 1, (0, 1))] == [2, 2, 3]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the forms chosen for CPU")
@pytest.mark.parametrize(
    ("change", "convolutions"),
    [({}, 0), ({"channels": 16}, 1), ({"batch": 4000}, 1), ({"dtype": "bfloat16"}, 1)],
    ids=str,
)
def test_maps_of_few_channels_are_pulled_back_by_one_product(change, convolutions):
    case = {"batch": 2, "channels": 6, "dtype": "float32"} | change
    kernel = jax.ShapeDtypeStruct((5, 5, case["channels"], 8), case["dtype"])
    x = jax.ShapeDtypeStruct((case["batch"], 10, 10, case["channels"]), case["dtype"])

    def pulled(x, kernel, g):
        return jax.vjp(lambda x: conv(x, kernel), x)[1](g)[0]

    g = jax.ShapeDtypeStruct((*x.shape[:-1], 8), case["dtype"])
    assert jax.jit(pulled).lower(x, kernel, g).as_text().count("stablehlo.conv") == convolutions


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_is_kept(dtype):
    x, kernel = whole((1, 4, 4, 2), dtype=dtype), whole((3, 3, 2, 2), 1, dtype)
    assert conv(x, kernel).dtype == dtype
    assert jax.grad(lambda k: jnp.sum(conv(x, k)))(kernel).dtype == dtype
    assert conv(x, kernel.astype("float32")).dtype == "float32"


X, K = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 2, 4))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"x": X[0, 0]}, ValueError, "x: expected"),
        ({"x": X.astype(int)}, TypeError, "x: expected floating"),
        ({"x": [1.0]}, TypeError, "x: expected an array"),
        ({"kernel": K[0]}, ValueError, "kernel: expected"),
        ({"kernel": K.astype(int)}, TypeError, "kernel: expected floating"),
        ({"kernel": K[:, :, :1]}, ValueError, "kernel: expected 2 input channels"),
        ({"kernel": 1.0}, TypeError, "kernel: expected an array"),
        ({"stride": 0}, ValueError, "stride: expected an int >= 1"),
        ({"stride": (1, 2, 3)}, ValueError, "stride: expected"),
        ({"dilation": 1.5}, TypeError, "dilation: expected an int"),
        ({"groups": 3}, ValueError, "groups: expected"),
        ({"groups": 0}, ValueError, "groups: expected"),
        ({"groups": True}, TypeError, "groups: expected"),
        ({"groups": "2"}, TypeError, "groups: expected"),
        ({"padding": "same"}, ValueError, "padding: unknown name 'same'"),
        ({"padding": ((1, -1), (0, 0))}, ValueError, "padding: expected"),
        ({"padding": "VALID", "dilation": 2}, ValueError, "window: .* larger than the map"),
    ],
    ids=str,
)
@pytest.mark.parametrize("traced", [False, True])
def test_bad_input(change, error, text, traced):
    arguments = {"x": X, "kernel": K} | change
    x, kernel = arguments.pop("x"), arguments.pop("kernel")

    def call():
        return conv(x, kernel, **arguments)

    with pytest.raises(error, match=text) as caught:
        jax.eval_shape(call) if traced else call()
    assert "\n" not in str(caught.value)

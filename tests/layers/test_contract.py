"""The operator contract (DESIGN section 3), for every row of POOLS.

Fixed methods agree with a naive NumPy loop over windows x strides x paddings x sizes; all methods
have right derivatives of every mode, keep dtype, transform, and move with their input as the card
claims. The cells that run and those that must raise are counted.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.layers.pooling import POOLS, Pool, canonical_arm, pool
from cnnjax.ops import padding as pads

KEY = jax.random.key(0)

# ---------------------------------------------------------------------------------------------
# A naive reference: pad with NumPy, walk over the windows.

MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect", "EDGE": "edge"}


def naive_sides(size: int, window: int, stride: int, padding: Any) -> tuple[int, int]:
    if padding == "VALID":
        return 0, 0
    if padding == "FULL":
        return window - 1, window - 1
    if padding == "SAME":
        total = max(0, window + stride * (math.ceil(size / stride) - 1) - size)
        return total // 2, total - total // 2
    return (window - 1) // 2, window // 2


def naive(
    x: np.ndarray, reduce: Any, window: Any, stride: Any, padding: Any, fill: float = 0.0
) -> np.ndarray:
    """Apply reduce (kh * kw, N, C) -> (N, C) to every window of x (N, H, W, C)."""
    sides = [
        naive_sides(n, w, s, padding) if isinstance(padding, str) else padding[axis]
        for axis, (n, w, s) in enumerate(zip(x.shape[1:3], window, stride, strict=True))
    ]
    mode = MODES.get(padding) if isinstance(padding, str) else None
    for axis, side in enumerate(sides, start=1):
        widths = [(0, 0)] * axis + [tuple(side)] + [(0, 0)] * (3 - axis)
        if mode is None:
            x = np.pad(x, widths, constant_values=fill)
        else:
            x = np.pad(x, widths, mode="edge" if mode == "reflect" and x.shape[axis] == 1 else mode)
    rows = range(0, x.shape[1] - window[0] + 1, stride[0])
    columns = range(0, x.shape[2] - window[1] + 1, stride[1])
    out = [
        [
            reduce(
                np.stack([
                    x[:, i + a, j + b] for a in range(window[0]) for b in range(window[1])
                ])
            )
            for j in columns
        ]
        for i in rows
    ]  # fmt: skip
    return np.moveaxis(np.asarray(out), 2, 0)


def softmax_mean(values: np.ndarray, beta: float) -> np.ndarray:
    weights = np.exp(beta * (values - values.max(0)))
    return (weights * values).sum(0) / weights.sum(0)


# name, parameters, reduction of a window's values (K, N, C), what the border is filled with
LOCAL: list[tuple[str, dict[str, Any], Callable[[np.ndarray], np.ndarray], float]] = [
    ("max", {}, lambda v: v.max(0), -np.inf),
    ("min", {}, lambda v: v.min(0), np.inf),
    ("sum", {}, lambda v: v.sum(0), 0.0),
    ("mean", {}, lambda v: v.mean(0), 0.0),
    ("median", {}, lambda v: np.median(v, axis=0), 0.0),
    ("lp", {"p": 3.0}, lambda v: (np.abs(v) ** 3).mean(0) ** (1 / 3), 0.0),
    ("lp", {"p": 1.5, "reduce": "sum"}, lambda v: (np.abs(v) ** 1.5).sum(0) ** (1 / 1.5), 0.0),
    ("gem", {}, lambda v: (np.maximum(v, 1e-6) ** 3).mean(0) ** (1 / 3), 0.0),
    ("lse", {"r": 2.0}, lambda v: np.log(np.exp(2 * v).mean(0)) / 2, 0.0),
    ("softpool", {}, lambda v: softmax_mean(v, 1.0), 0.0),
    ("beta_softmax", {"beta": -2.0}, lambda v: softmax_mean(v, -2.0), 0.0),
]
EXACT = ("max", "min", "median", "sum")  # on integers
WINDOWS = [(1, 1), (2, 2), (3, 3), (3, 2)]
STRIDES = [(1, 1), (2, 2), (3, 3), (4, 4), (1, 2)]
PADDINGS: list[Any] = [*pads.PADDINGS, ((2, 0), (1, 3))]
SIZES = [(6, 6), (5, 7), (4, 9), (2, 2), (1, 3)]


def cells() -> list[tuple[Any, ...]]:
    """Every (window, stride) with two paddings and a size in turn: all pairs of axes occur."""
    result = []
    for number, (window, stride) in enumerate(itertools.product(WINDOWS, STRIDES)):
        for step in range(2):
            padding = PADDINGS[(2 * number + step + number // 4) % len(PADDINGS)]
            result.append((window, stride, padding, SIZES[(number + 3 * step) % len(SIZES)]))
    return result


CELLS = cells()


def fits(window: Any, stride: Any, padding: Any, size: Any) -> bool:
    sides = [
        sum(naive_sides(n, w, s, padding) if isinstance(padding, str) else padding[axis])
        for axis, (n, w, s) in enumerate(zip(size, window, stride, strict=True))
    ]
    return all(n + p >= w for n, p, w in zip(size, sides, window, strict=True))


def test_which_cells_there_are() -> None:
    assert len(CELLS) == 40
    assert sum(fits(*cell) for cell in CELLS) == 39
    for axis, values in enumerate((WINDOWS, STRIDES, PADDINGS, SIZES)):
        assert all(any(cell[axis] == value for cell in CELLS) for value in values)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_naive_loop(cell: tuple[Any, ...]) -> None:
    window, stride, padding, size = cell
    take = {"window": window, "stride": stride, "padding": padding}
    x = np.random.default_rng(0).integers(-4, 5, size=(2, *size, 2)).astype(np.float32)

    def all_of_them(x: jax.Array) -> list[jax.Array]:
        return [pool(x, name, **take, **params) for name, params, _, _ in LOCAL]

    if not fits(*cell):
        with pytest.raises(ValueError, match=r"window: .* is larger than the map"):
            all_of_them(x)
        return
    results = quick_jit(all_of_them)(x)
    assert len(results) == 11
    for (name, _, reduce, fill), y in zip(LOCAL, results, strict=True):
        expected = naive(x.astype(np.float64), reduce, window, stride, padding, fill)
        assert y.shape == expected.shape and y.dtype == jnp.float32
        assert y.shape[1:3] == pads.output_size(size, window, stride, padding)
        if name in EXACT:
            np.testing.assert_array_equal(y, expected, err_msg=name)
        else:
            np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-6, err_msg=name)


side = st.integers(0, 4)


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    window=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.sampled_from(pads.PADDINGS)
    | st.tuples(st.tuples(side, side), st.tuples(side, side)),
)
def test_shape_algebra(size: Any, window: Any, stride: Any, padding: Any) -> None:
    if not fits(window, stride, padding, size):
        with pytest.raises(ValueError, match="window: "):
            pads.output_size(size, window, stride, padding)
        return
    sides = [
        naive_sides(n, w, s, padding) if isinstance(padding, str) else padding[axis]
        for axis, (n, w, s) in enumerate(zip(size, window, stride, strict=True))
    ]
    assert list(pads.amounts(size, window, stride, padding)) == [tuple(s) for s in sides]
    expected = [
        len(range(0, n + lo + hi - w + 1, s))
        for n, w, s, (lo, hi) in zip(size, window, stride, sides, strict=True)
    ]
    assert list(pads.output_size(size, window, stride, padding)) == expected
    if padding in ("SAME", "ZEROS", "CIRCULAR", "REFLECT", "EDGE"):
        assert expected == [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]


# Compiling is most of what these tests do; code that runs once need not be fast.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


# ---------------------------------------------------------------------------------------------
# Every row: one arm each, at stride 2 on circular maps where it takes them.


def arm(name: str, stride: int = 2, window: int = 2, **params: Any) -> Any:
    """Build the module of one arm of row `name`."""
    card = POOLS[name]
    kwargs: dict[str, Any] = dict(params)
    if name == "canonical":
        kwargs |= {"method": "softpool", "window": window}
    for key, value in (("window", window), ("stride", stride), ("padding", "CIRCULAR")):
        if key in card.takes:
            kwargs[key] = value
    return Pool(name, **kwargs)


@functools.cache
def variables(name: str, channels: int = 2) -> Any:
    """Initialise row `name` and move its parameters off their symmetric start."""
    module = arm(name)
    start = quick_jit(module.init)(jax.random.key(0), jnp.zeros((8, 8, channels), jnp.float32))
    leaves, tree = jax.tree.flatten(start)
    generator = np.random.default_rng(1)
    noise = [0.2 * np.abs(generator.normal(size=leaf.shape)) for leaf in leaves]
    moved = [np.asarray(leaf + n, np.float32) for leaf, n in zip(leaves, noise, strict=True)]
    return jax.tree.unflatten(tree, moved)


def run(name: str, x: Any, **kwargs: Any) -> Any:
    return arm(name, **kwargs).apply(variables(name, x.shape[-1]), x)


def positive(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Distinct positive values with gaps, so that no maximum ties and no rectifier is at 0."""
    count = math.prod(shape)
    order = np.random.default_rng(seed).permutation(count)
    return ((order + 1) / count * 2 + 0.1).reshape(shape).astype(np.float32)


# Compiling every row is minutes of work: these stand for their kind at once, the rest are slow.
QUICK = ("max", "mean", "aps", "softpool", "spectral", "mixed")
ROWS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in POOLS]


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_derivatives(name: str) -> None:
    """Reverse, forward and second derivatives against finite differences in float64."""
    with jax.enable_x64(True):
        x = jnp.asarray(positive((4, 4, 2)), jnp.float64)
        values = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), variables(name))
        directions = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, 4, 2)))
        module = arm(name)

        def f(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(module.apply(values, x)))

        @quick_jit
        def compare(x: jax.Array, v: jax.Array) -> Any:
            both = jax.value_and_grad(f)
            (_, gradient), (forward, bend) = jax.jvp(both, (x,), (v,))
            levels, slopes = jax.vmap(both)(jnp.stack([x + 1e-5 * v, x - 1e-5 * v]))
            difference, bends = (levels[0] - levels[1]) / 2e-5, (slopes[0] - slopes[1]) / 2e-5
            return jnp.vdot(gradient, v), forward, difference, bend, bends

        for v in directions:
            reverse, forward, difference, bend, bends = compare(x, v)
            np.testing.assert_allclose(reverse, difference, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(forward, difference, rtol=1e-6, atol=1e-8)
            np.testing.assert_allclose(bend, bends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_transforms(name: str) -> None:
    """jit, vmap, scan, remat and donation give what the plain call gives; any leading axes."""
    x = positive((3, 2, 4, 4, 2))
    module, values = arm(name), variables(name)

    def f(x: jax.Array) -> jax.Array:
        return module.apply(values, x)

    def scanned(x: jax.Array) -> jax.Array:
        step = jax.checkpoint(f)
        return jax.lax.scan(lambda carry, each: (carry, step(each)), 0, x)[1]

    @functools.partial(quick_jit, donate_argnums=1)
    def transformed(x: jax.Array, donated: jax.Array) -> Any:
        def cost(g: Any, x: jax.Array) -> Any:
            y = g(x)
            return jnp.sum(y**2), y

        (_, looped), slope = jax.value_and_grad(functools.partial(cost, scanned), has_aux=True)(x)
        (_, plain), other = jax.value_and_grad(functools.partial(cost, f), has_aux=True)(x)
        return plain, jax.vmap(f)(x), looped, f(x[..., ::-1]), slope, other, donated + 1

    plain, mapped, looped, flipped, slope, remat, _ = transformed(x, jnp.zeros_like(x))
    # LIP's weights are exp of up to 12, which makes twelve roundings of one.
    rtol = 6e-6 if name == "lip" else 5e-7
    for other in (mapped, looped):
        np.testing.assert_allclose(other, plain, rtol=rtol, atol=1e-7)
    np.testing.assert_allclose(slope, remat, rtol=2e-5, atol=2e-5)
    if name in EAGER_IS_EXACT:
        np.testing.assert_array_equal(mapped, plain)
        np.testing.assert_array_equal(looped, plain)
        np.testing.assert_array_equal(f(jnp.asarray(x[0, 0])), plain[0, 0])
    if name not in MIXES_CHANNELS and not POOLS[name].learnable:
        blocks = plain.shape[-1] // 2
        turned = flipped.reshape(*plain.shape[:-1], blocks, 2)[..., ::-1].reshape(plain.shape)
        np.testing.assert_array_equal(turned, plain)


EAGER_IS_EXACT = ("max", "min", "median", "decimate", "aps", "max_aps", "space_to_depth")
MIXES_CHANNELS = ("ddac", "lip", "lps")


def test_how_many_rows_are_held_to_what() -> None:
    assert len(POOLS) == 39
    fixed = [name for name, card in POOLS.items() if not card.learnable]
    assert len(fixed) == 28 and not set(fixed) & set(MIXES_CHANNELS)


@pytest.mark.parametrize("name", POOLS)
def test_dtype_batch_and_channels(name: str) -> None:
    module, values = arm(name), variables(name)
    x = positive((2, 4, 4, 2))
    shapes = {
        kind: jax.eval_shape(lambda x: module.apply(values, x), jax.ShapeDtypeStruct(shape, kind))
        for kind, shape in ((jnp.bfloat16, x.shape), (jnp.float16, x.shape), (jnp.float32, x.shape))
    }
    assert all(y.dtype == kind for kind, y in shapes.items())
    empty = jax.eval_shape(
        lambda x: module.apply(values, x), jax.ShapeDtypeStruct((0, 4, 4, 2), jnp.float32)
    )
    assert empty.shape == (0, *shapes[jnp.float32].shape[1:])
    with jax.enable_x64(True):
        wide = jax.eval_shape(
            lambda x: module.apply(values, x), jax.ShapeDtypeStruct(x.shape, jnp.float64)
        )
    assert wide.dtype == jnp.float64
    for bad, kind, words in (
        (x.astype(np.uint8), TypeError, r"x: expected floating values, got uint8; convert"),
        (x[0, 0], ValueError, r"x: expected \(\.\.\., H, W, C\)"),
        (x[:, :0], ValueError, r"x: expected \(\.\.\., H, W, C\)"),
        (x.tolist(), TypeError, "x: expected an array"),
    ):
        with pytest.raises(kind, match=words):
            module.apply(values, bad)


# ---------------------------------------------------------------------------------------------
# Equivariance over all shifts, and what must fail.

# Bit for bit at window and stride 2 on small integers.
DYADIC = (
    "max", "min", "sum", "mean", "median", "decimate", "max_mean", "space_to_depth", "haar",
    "blur", "max_blur", "mixed_random", "s3",
)  # fmt: skip
# Moves by fractions of a pixel or by the selected phase (tests/ops/test_polyphase.py), or not.
OTHER = ("aps", "aps_blur", "max_aps", "lps", "canonical", "diffstride", "fractional_max")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in POOLS if name not in OTHER])
def test_lattice_equivariance(name: str) -> None:
    """P1: y(roll(x, s k)) == roll(y(x), k); at stride 1 every shift; off the lattice it fails."""
    x = np.random.default_rng(4).integers(-8, 9, size=(8, 6, 2)).astype(np.float32)
    x = np.abs(x) if name in ("gem", "stochastic", "max_dropout") else x
    moves = list(itertools.product(range(8), range(6)))
    rolled = np.stack([np.roll(x, move, (0, 1)) for move in moves])
    module, values = arm(name), variables(name)
    apply = quick_jit(lambda x: (module.apply(values, x), module.apply(values, x, method="dense")))
    y, dense = (np.asarray(part) for part in apply(rolled))
    compare = (
        np.testing.assert_array_equal
        if name in DYADIC
        else functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5)
    )
    compare(dense[:, ::2, ::2], y)
    for (i, j), each, whole in zip(moves, y, dense, strict=True):
        compare(whole, np.roll(dense[0], (i, j), (0, 1)))
        if i % 2 == 0 and j % 2 == 0:
            compare(each, np.roll(y[0], (i // 2, j // 2), (0, 1)))
    off = [
        any(np.allclose(np.roll(y[0], move, (0, 1)), each, atol=1e-3)
            for move in itertools.product(range(4), range(3)))
        for (i, j), each in zip(moves, y, strict=True) if i % 2 or j % 2
    ]  # fmt: skip
    assert not any(off), "moves off its lattice as well: the control saw nothing"
    assert len(off) == 36


@pytest.mark.parametrize("name", ["spectral", "diffstride"])
def test_fractional_equivariance(name: str) -> None:
    """P3: the spectrum of y(roll(x, d)) is that of y(x) turned by d / s; flc is the control."""
    x = np.random.default_rng(5).normal(size=(16, 12, 1)).astype(np.float32)

    def error(name: str) -> float:
        kwargs = {"smoothness": 2.0} if name == "diffstride" else {}
        module = Pool(name, stride=2, **kwargs)
        values = module.init(jax.random.key(0), x)
        moves = list(itertools.product(range(16), range(12)))
        rolled = np.stack([np.roll(x, move, (0, 1)) for move in moves])
        y = np.fft.fft2(np.asarray(quick_jit(lambda x: module.apply(values, x))(rolled))[..., 0])
        rows, columns = (np.fft.fftfreq(n) * n for n in y.shape[1:])
        worst = 0.0
        for (i, j), each in zip(moves, y, strict=True):
            turn = np.exp(-2j * np.pi * (rows[:, None] * i / 16 + columns * j / 12))
            worst = max(worst, np.abs(each - turn * y[0]).max())
        return worst / float(np.abs(y[0]).max())

    assert error(name) < 1e-5
    assert error("flc") > 1e-2


@pytest.mark.parametrize("name", ["sum", "mean", "blur", "spectral", "flc"])
def test_last_stage_is_exactly_blind(name: str) -> None:
    """P4: after these a global mean is blind to every shift; the card says when, and when not."""
    x = np.random.default_rng(6).integers(-8, 9, size=(8, 8, 1)).astype(np.float32)
    rolled = np.stack([np.roll(x, move, (0, 1)) for move in itertools.product(range(8), range(8))])
    totals = np.asarray(run(name, rolled)).sum((1, 2, 3))
    card = POOLS[name]
    assert card.last_stage_exact({"window": (2, 2), "stride": (2, 2)})
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5, atol=1e-4)
    if name in ("sum", "mean", "blur"):
        np.testing.assert_array_equal(totals, totals[0])
        over = {"window": (3, 3), "stride": (2, 2)} if name != "blur" else {"stride": (4, 4)}
        assert not card.last_stage_exact(over)
        totals = np.asarray(run(name, rolled, stride=4)).sum((1, 2, 3))
        assert np.ptp(totals) > 1e-3


def test_zero_padding_breaks_equivariance() -> None:
    x = np.random.default_rng(7).normal(size=(8, 8, 1)).astype(np.float32) + 3
    moved = np.roll(x, 2, 0)
    for name in ("mean", "blur"):
        kwargs = {"window": 3} if name == "mean" else {}
        y, z = (pool(v, name, stride=2, padding="ZEROS", **kwargs) for v in (x, moved))
        assert not np.allclose(np.roll(y, 1, 0), z)
        y, z = (pool(v, name, stride=2, padding="CIRCULAR", **kwargs) for v in (x, moved))
        np.testing.assert_array_equal(np.roll(y, 1, 0), z)


# ---------------------------------------------------------------------------------------------
# Limits, ties, special values, windows of every size.


@pytest.mark.slow
def test_limits() -> None:
    x = positive((6, 6, 2))
    take = {"window": 3, "stride": 2}
    arms: dict[str, tuple[str, dict[str, Any]]] = {
        "mean": ("mean", {}),
        "max": ("max", {}),
        "lp 1": ("lp", {"p": 1.0}),
        "gem 1": ("gem", {"p": 1.0}),
        "lse 0": ("lse", {"r": 1e-3}),
        "beta 0": ("beta_softmax", {"beta": 0.0}),
        "lp": ("lp", {"p": 1000.0}),
        "gem": ("gem", {"p": 1000.0}),
        "lse": ("lse", {"r": 1000.0}),
        "beta": ("beta_softmax", {"beta": 1e4}),
    }
    y = quick_jit(lambda x: {k: pool(x, n, **take, **p) for k, (n, p) in arms.items()})(x)
    for name in ("lp 1", "gem 1", "beta 0"):
        np.testing.assert_allclose(y[name], y["mean"], rtol=1e-6)
    np.testing.assert_allclose(y["lse 0"], y["mean"], rtol=1e-2)
    for name in ("lp", "gem", "lse", "beta"):
        np.testing.assert_allclose(y[name], y["max"], rtol=1e-2)
    box = pool(x, "gaussian_blur", stride=2, filter_size=3, sigma=1e4)
    np.testing.assert_allclose(box, y["mean"], rtol=1e-6)
    for stride in (1, 2):
        module = Pool("diffstride", stride=1)
        identity = module.apply(module.init(jax.random.key(0), x), x)
        np.testing.assert_allclose(identity, x, atol=1e-6)
        smaller = Pool("diffstride", stride=stride, match_size=True)
        assert smaller.apply(smaller.init(jax.random.key(0), x), x).shape[0] == 6 // stride
    large = np.full((2, 2, 1), 1e30, np.float32)
    np.testing.assert_allclose(pool(large, "lp", window=2, p=3.0), 1e30, rtol=1e-6)
    np.testing.assert_allclose(pool(large, "lse", window=2), 1e30, rtol=1e-6)
    assert np.isfinite(pool(large, "softpool", window=2)).all()


STARTS = {
    "lip": ("mean", {}),
    "mixed": ("max_mean", {}),
    "gated": ("max_mean", {}),
    "ordinal": ("mean", {}),
    "lenet_subsample": ("mean", {}),
    "tlpf": ("blur", {}),
}


@pytest.mark.slow
def test_layers_start_as_what_they_generalise() -> None:
    x = positive((2, 8, 8, 3))
    for name, (fixed, _) in STARTS.items():
        window = {} if fixed == "blur" else {"window": 3}
        module = Pool(name, stride=2, padding="REFLECT", **window)
        y = quick_jit(module.init_with_output)(jax.random.key(0), x)[0]
        expected = pool(x, fixed, stride=2, padding="REFLECT", **window)
        np.testing.assert_allclose(y, expected, rtol=2e-6, err_msg=name)
    for name in ("lp", "gem", "lse", "beta_softmax", "blur"):
        window = {} if name == "blur" else {"window": 3}
        module = Pool(name, stride=2, learn=True, **window)
        y, start = quick_jit(module.init_with_output)(jax.random.key(0), x)
        np.testing.assert_allclose(y, pool(x, name, stride=2, **window), rtol=2e-6)
        gradient = quick_jit(jax.grad(lambda v, m=module: jnp.sum(m.apply(v, x) ** 3)))(start)
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_ties_give_the_gradient_to_the_first_maximum() -> None:
    x = np.random.default_rng(8).integers(0, 3, size=(1, 6, 7, 2)).astype(np.float32)
    for window, stride in ((2, 2), (3, 1), (3, 2)):
        take = {"window": window, "stride": stride}
        sizes = (1, window, window, 1), (1, stride, stride, 1)
        ours, lowest, stock = quick_jit(
            lambda v, take=take, sizes=sizes: (
                jax.grad(lambda v: jnp.sum(pool(v, "max", **take) ** 2))(v),
                jax.grad(lambda v: jnp.sum(pool(v, "min", **take) ** 2))(-v),
                jax.grad(lambda v: jnp.sum(
                    jax.lax.reduce_window(v, -jnp.inf, jax.lax.max, *sizes, "VALID") ** 2))(v),
            )
        )(x)  # fmt: skip
        np.testing.assert_array_equal(ours, stock)
        np.testing.assert_array_equal(lowest, -np.asarray(stock))


@pytest.mark.slow
def test_special_values() -> None:
    x = np.full((4, 4, 1), -np.inf, np.float32)
    for name in ("max", "min", "median", "softpool", "lse", "mean", "beta_softmax"):
        assert (pool(x, name, window=2) == -np.inf).all(), name
    gradient = jax.grad(lambda v: pool(v, "max", window=2).sum())(x)
    np.testing.assert_array_equal(gradient[::2, ::2], 1)
    assert (np.asarray(pool(x, "lp", window=2)) == np.inf).all()
    spot = np.ones((10, 10, 1), np.float32)
    spot[0, 0] = np.nan
    for name, card in POOLS.items():
        if card.nan.startswith("spreads to the windows") and not card.learnable:
            module, values = arm(name), variables(name)
            y = np.asarray(quick_jit(functools.partial(module.apply, values))(np.tile(spot, 2)))
            if name == "space_to_depth":
                y = y[..., :2]
            assert np.isnan(y[0, 0]).all() and np.isfinite(y[2, 2]).all(), name
    zero = jax.grad(lambda v: pool(v, "lp", window=2).sum())(np.zeros((4, 4, 1), np.float32))
    np.testing.assert_array_equal(zero, 0)


def test_nothing_that_is_not_finite_is_hidden() -> None:
    spot = jnp.ones((1, 4, 4, 1)).at[0, 0, 0].set(jnp.nan).at[0, 3, 3].set(jnp.inf)
    for train in (False, True):
        y = Pool("stochastic", window=2).apply({}, spot, train=train, rngs={"pool": KEY})
        np.testing.assert_array_equal(y[0, :, :, 0], [[np.nan, 1], [1, np.inf]])
    lip = Pool("lip", window=2)
    x = jax.random.normal(KEY, (2, 8, 8, 2))
    held = lip.init(KEY, x)
    y = np.asarray(lip.apply(held, x.at[0, 0, 0, 0].set(jnp.nan)))
    assert np.isnan(y[0, ..., 0]).all() and np.isfinite(y[1]).all()
    low = jnp.array([-jnp.inf, 1.0, 2.0, 3.0]).reshape(2, 2, 1)
    np.testing.assert_array_equal(Pool("max_dropout", window=2, rate=0).apply({}, low), [[[3]]])


@pytest.mark.parametrize("p", [0.5, 0.9, 1.0, 1.5])
@pytest.mark.parametrize("window", [2, 7])
def test_the_gradient_of_lp_at_0_is_0(p: float, window: int) -> None:
    x = jnp.arange(64.0).reshape(8, 8, 1)
    slope = jax.grad(lambda x: pool(x, "lp", window=window, stride=1, p=p).sum())(x)
    assert slope[0, 0, 0] == 0 and np.isfinite(slope).all() and (slope[1:, 1:] > 0).all()


def test_canonical_passes_on_what_is_the_inner_methods() -> None:
    x = jax.random.uniform(KEY, (2, 6, 6, 3))
    for own in ({}, {"p": 1.0}, {"p": 3.0, "reduce": "sum"}):
        renamed = {"inner_p" if k == "p" else k: v for k, v in own.items()}
        y = pool(x, "canonical", method="lp", window=2, stride=2, p=1, **renamed)
        dense = pool(x, "lp", window=2, stride=1, padding="CIRCULAR", **own)
        np.testing.assert_array_equal(y, pool(dense, "aps", stride=2, p=1))
        params = {"method": "lp", "p": 1, **renamed}
        card = POOLS["canonical"].given(params)
        gain = pool(jnp.ones((1, 2, 2, 1)), "canonical", window=2, stride=2, **params)
        assert card.gain(card.arguments(2, 2, None, params)) == pytest.approx(float(gain.max()))
    with pytest.raises(ValueError, match="inner_p: expected a number > 0, got -1"):
        pool(x, "canonical", method="lp", window=2, stride=2, inner_p=-1)


def test_scalars_of_numpy_and_jax_are_numbers() -> None:
    x = jax.random.uniform(KEY, (4, 4, 1))
    want = pool(x, "lp", window=2, p=3)
    for three in (np.float32(3), np.int64(3), jnp.float32(3)):
        np.testing.assert_allclose(pool(x, "lp", window=2, p=three), want, rtol=1e-6)
    pool(x, "blur", stride=2, filter_size=np.int64(3))
    for wrong in (np.float32(-3), jnp.float32(-3), jnp.float32(np.nan), np.float64(np.inf)):
        with pytest.raises(ValueError, match="p: expected a number > 0"):
            pool(x, "lp", window=2, p=wrong)
    with pytest.raises(ValueError, match="temperature: expected a number > 0, got 0"):
        Pool("lps", stride=2).init(KEY, x, train=True, temperature=0.0)


@pytest.mark.parametrize(("dtype", "value"), [("bfloat16", 0.3), ("float16", 10_000.0)])
@pytest.mark.parametrize("window", [3, 5, 31])
def test_means_of_short_floats_keep_constants(dtype: str, value: float, window: int) -> None:
    x = jnp.full((1, 31, 31, 1), value, dtype)
    for method, arguments in (("mean", {"window": window}), ("blur", {"stride": 2})):
        y = pool(x, method, **arguments)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, x[:, : y.shape[1], : y.shape[2]])


@pytest.mark.parametrize(("size", "stride"), [((8, 8), 2), ((7, 8), 2), ((9, 8), 3), ((8, 5), 4)])
def test_ddac_filters_a_pixel_by_what_was_predicted_there(size: Any, stride: int) -> None:
    x = jax.random.normal(KEY, (2, *size, 3))
    ours, dense = (Pool("ddac", stride=s, padding="SAME") for s in (stride, 1))
    held = ours.init(KEY, x)
    first = [naive_sides(n, 3, 1, "SAME")[0] - naive_sides(n, 3, stride, "SAME")[0] for n in size]
    want = dense.apply(held, x)[:, first[0] :: stride, first[1] :: stride]
    np.testing.assert_allclose(ours.apply(held, x), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("window", "stride"), [((12, 11), (3, 2)), ((14, 13), (1, 1))])
def test_large_and_global_windows(window: Any, stride: Any) -> None:
    x = np.random.default_rng(9).integers(0, 9, size=(1, 14, 13, 1)).astype(np.float32)
    take = {"window": window, "stride": stride}
    reductions: dict[str, Any] = {
        "max": lambda v: v.max(0),
        "mean": lambda v: v.mean(0),
        "median": lambda v: np.median(v, axis=0),
        "softpool": lambda v: softmax_mean(v, 1.0),
    }

    def stock(x: jax.Array) -> jax.Array:
        sizes = (1, *window, 1), (1, *stride, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *sizes, "VALID")

    @quick_jit
    def outputs(x: jax.Array) -> Any:
        results = [pool(x, name, **take) for name in reductions]
        slopes = [jax.grad(lambda v, f=f: jnp.sum(f(v) ** 2))(x)
                  for f in (lambda v: pool(v, "max", **take), stock)]  # fmt: skip
        return results, slopes

    results, (ours, theirs) = outputs(x)
    for reduce, y in zip(reductions.values(), results, strict=True):
        expected = naive(x.astype(np.float64), reduce, window, stride, "VALID")
        np.testing.assert_allclose(y, expected, rtol=1e-5)
    np.testing.assert_array_equal(ours, theirs)


def test_small_maps() -> None:
    """On 1x1 and 2x2 maps every method answers or says what does not fit."""
    answers = errors = 0
    for name, size in itertools.product(POOLS, ((1, 1), (2, 2), (3, 1))):
        module = arm(name)
        try:
            y = jax.eval_shape(
                lambda v, m=module: m.init_with_output(jax.random.key(0), v)[0],
                jax.ShapeDtypeStruct((1, *size, 2), jnp.float32),
            )
            assert min(y.shape[1:3]) >= 1
            answers += 1
        except ValueError as error:
            assert "does not divide the map" in str(error), (name, size, error)
            errors += 1
    assert (answers, errors) == (39 * 3 - 18, 18)


# ---------------------------------------------------------------------------------------------
# Chance: what is drawn, from which key, and its mean.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stochastic", "max_dropout", "s3", "mixed_random"])
def test_the_mean_of_training_is_evaluation(name: str) -> None:
    x = positive((4, 4, 1)) if name != "s3" else np.ones((4, 4, 1), np.float32)
    module, values = arm(name), variables(name, 1)
    keys = jax.random.split(jax.random.key(3), 4000)
    draws = quick_jit(jax.vmap(lambda key: module.apply(
        values, x, train=True, rngs={"pool": key})))(keys)  # fmt: skip
    expected = module.apply(values, x)
    if name == "mixed_random":
        expected = (pool(x, "max", window=2) + pool(x, "mean", window=2)) / 2
    error = np.std(np.asarray(draws), axis=0) / np.sqrt(len(keys)) + 1e-6
    assert (np.abs(draws.mean(0) - expected) < 5 * error).all()
    # A value of the window, or 0 where all were dropped.
    if name in ("stochastic", "max_dropout"):
        assert np.isin(np.asarray(draws), [*x.reshape(-1), 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, card in POOLS.items() if card.stochastic])
def test_training_needs_a_key(name: str) -> None:
    x = positive((8, 8, 2))
    module, values = arm(name), variables(name)
    with pytest.raises(ValueError, match=rf"rngs: pool '{name}' is random in training"):
        module.apply(values, x, train=True)
    once, again, other = (
        module.apply(values, x, train=True, rngs={"pool": jax.random.key(seed)})
        for seed in (1, 1, 7)
    )
    np.testing.assert_array_equal(once, again)
    assert once.shape == module.apply(values, x).shape
    assert name == "mixed_random" or not np.array_equal(once, other)


def test_mixed_random_remembers() -> None:
    x = positive((4, 4, 1))
    module = Pool("mixed_random", window=2)
    state = module.init(jax.random.key(0), x)
    for maxima, expected in ((3.0, "max"), (1.0, "mean")):
        counts = {"maxima": jnp.asarray([maxima]), "calls": jnp.asarray(4.0)}
        y = module.apply({"batch_stats": counts}, x)
        np.testing.assert_array_equal(y, pool(x, expected, window=2))
    _, new = module.apply(
        state, x, train=True, rngs={"pool": jax.random.key(1)}, mutable=["batch_stats"]
    )
    assert float(new["batch_stats"]["calls"]) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("regions", ["random", "pseudo"])
@pytest.mark.parametrize("overlap", [True, False])
def test_fractional_max(regions: str, overlap: bool) -> None:
    from cnnjax.ops import chance

    for size, outputs in ((25, 17), (9, 4)):
        for seed in range(3):
            bounds = np.asarray(chance.fractional_bounds(
                jax.random.key(seed), size, outputs, regions == "random"))  # fmt: skip
            steps = np.diff(bounds)
            assert bounds[0] == 0 and bounds[-1] == size and len(steps) == outputs
            assert set(steps) <= {size // outputs, -(-size // outputs)}
    x = positive((10, 9, 2))
    module = Pool("fractional_max", regions=regions, overlap=overlap)
    y = module.apply({}, x, train=True, rngs={"pool": jax.random.key(0)})
    assert y.shape == (7, 6, 2) and y.max() == x.max() and np.isin(y, x).all()
    rows, columns = (np.asarray(chance.fractional_bounds(None, n, m, False))
                     for n, m in ((10, 7), (9, 6)))  # fmt: skip
    expected = [[x[a : b + overlap, c : d + overlap].max((0, 1))
                 for c, d in itertools.pairwise(columns)]
                for a, b in itertools.pairwise(rows)]  # fmt: skip
    np.testing.assert_array_equal(module.apply({}, x), expected)


def test_s3_keeps_rows_and_columns_of_its_cells() -> None:
    x = np.arange(64, dtype=np.float32).reshape(8, 8, 1)
    module = Pool("s3", window=1, stride=2, grid=4)
    y = module.apply({}, np.stack([x, x + 100]), train=True, rngs={"pool": jax.random.key(5)})
    np.testing.assert_array_equal(y[1], y[0] + 100)  # one draw for the whole batch
    rows, columns = np.unique(y[0] // 8), np.unique(y[0] % 8)
    assert len(rows) == len(columns) == 4
    assert (rows < 4).sum() == 2 and (columns < 4).sum() == 2
    with pytest.raises(ValueError, match="grid: expected a multiple of the stride 2, got 3"):
        Pool("s3", window=1, stride=2, grid=3).apply(
            {}, x[:6, :6], train=True, rngs={"pool": jax.random.key(5)}
        )


# ---------------------------------------------------------------------------------------------
# Bad input.

x22 = np.ones((4, 4, 1), np.float32)
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: pool(x22, "maxx", window=2), ValueError, "pool: unknown name 'maxx'; did you mean"),
    (lambda: pool(x22, "max"), ValueError, "window: pool 'max' needs one, got None"),
    (lambda: pool(x22, "blur"), ValueError, "stride: pool 'blur' needs one, got None"),
    (lambda: pool(x22, "max", window=0), ValueError, "window: expected an int >= 1 or two"),
    (lambda: pool(x22, "max", window=2.0), TypeError, "window: expected an int >= 1 or two"),
    (lambda: pool(x22, "max", window=(2, 2, 2)), ValueError, "window: expected an int >= 1"),
    (lambda: pool(x22, "max", window=2, stride=-1), ValueError, "stride: expected an int >= 1"),
    (lambda: pool(x22, "max", window=2, stride=True), TypeError, "stride: expected an int >= 1"),
    (lambda: pool(x22, "max", window=2, padding="SAEM"), ValueError, "padding: unknown name"),
    (lambda: pool(x22, "max", window=2, padding=((1, -1), (0, 0))), ValueError, "padding: expe"),
    (lambda: pool(x22, "max", window=2, q=1), ValueError, "q: unknown parameter of pool 'max'"),
    (lambda: pool(x22, "aps", window=2, stride=2), ValueError, "window: pool 'aps' takes none"),
    (lambda: pool(x22, "decimate", stride=2, padding="SAME"), ValueError, "padding: pool 'dec"),
    (lambda: pool(x22, "blur", stride=2, filter_size=8), ValueError, "filter_size: expected an"),
    (lambda: pool(x22, "lp", window=2, p=0), ValueError, "p: expected a number > 0, got 0"),
    (lambda: pool(x22, "lp", window=2, p=float("nan")), ValueError, "p: expected a number"),
    (lambda: pool(x22, "lp", window=2, p=True), TypeError, "p: expected a number > 0, got True"),
    (lambda: pool(x22, "lp", window=2, reduce="max"), ValueError, "reduce: expected 'mean' or"),
    (lambda: pool(x22, "lp", window=2, learn=True), ValueError, "learn: only Pool"),
    (lambda: pool(x22, "mixed", window=2), ValueError, "pool: 'mixed' has parameters or random"),
    (lambda: pool(x22, "haar", stride=3), ValueError, "stride: .* does not divide the map"),
    (lambda: pool(x22[:3, :3], "haar", stride=3), ValueError, "stride: .*powers of two"),
    (lambda: pool(x22, "max", window=5), ValueError, r"window: \(5, 5\) is larger than the map"),
    (lambda: Pool("lp", window=2, learn=1), TypeError, "learn: expected True or False, got 1"),
    (lambda: Pool("max", window=2, learn=True), ValueError, "learn: pool 'max' has nothing to"),
    (lambda: Pool("lp", window=2, p=1.0, learn=True), ValueError, "p: expected a number > 1 to"),
    (lambda: Pool("max_dropout", window=2, rate=1.0), ValueError, "rate: expected a number >= 0"),
    (lambda: Pool("tree", window=2, depth=9), ValueError, "depth: expected an int >= 1 and <= 5"),
    (lambda: Pool("canonical", stride=2), ValueError, "method: pool 'canonical' needs one"),
    (lambda: Pool("canonical", method="lps", stride=2), ValueError, "method: 'lps' has no form"),
    (lambda: Pool("ddac", stride=2, groups=3).init(jax.random.key(0), np.ones((4, 4, 4))),
     ValueError, "groups: expected a divisor of the 4 channels, got 3"),
    (lambda: Pool("max", window=2, padding="SAME").apply({}, x22, method="dense"),
     ValueError, "padding: 'SAME' at stride"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input(number: int) -> None:
    call, kind, words = BAD[number]
    with pytest.raises(kind, match=words) as error:
        call()
    assert type(error.value) is kind and "\n" not in str(error.value)


def test_modules_compare_by_value() -> None:
    for name in POOLS:
        one, two = arm(name), arm(name)
        assert one == two and hash(one) == hash(two) and one.method == name
        assert one != arm(name, stride=4) or name == "fractional_max"
        card = POOLS[name]
        assert (one.dense is not None) == card.has_dense or name == "canonical"
        if name != "fractional_max":
            assert one.stride == (2, 2)
        assert one.window == ((2, 2) if "window" in card.takes or name == "canonical" else None)
    assert canonical_arm("max", 2, 2) is None

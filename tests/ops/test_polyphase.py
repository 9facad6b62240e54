"""Polyphase sampling: exact over all shifts with ==, ties included, and controls that must fail."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.layers.pooling import Pool, pool, unpool
from cnnjax.ops import polyphase

INF = float("inf")
SHAPES = [((8, 8, 3), (2, 2)), ((9, 6, 2), (3, 3)), ((4, 12, 2), (4, 3))]
ARMS: list[tuple[str, dict[str, Any]]] = [
    ("aps", {"p": 1}),
    ("aps", {"p": 2}),
    ("aps", {"p": INF}),
    ("aps_blur", {"judge": "after"}),
    ("aps_blur", {"judge": "before", "filter_size": 2}),
    ("max_aps", {"window": 3, "p": INF}),
    ("canonical", {"method": "median", "window": 3}),
    ("canonical", {"method": "softpool", "window": 2}),
]


def shifted(x: np.ndarray) -> np.ndarray:
    """Stack all H * W circular shifts of x (H, W, C), row-major."""
    height, width = x.shape[:2]
    return np.stack([np.roll(x, (i, j), (0, 1)) for i in range(height) for j in range(width)])


def equal_up_to_a_roll(y: np.ndarray, z: np.ndarray) -> bool:
    """True where y (h, w, C) is a circular shift of z, bit for bit."""
    return any((np.roll(z, (i, j), (0, 1)) == y).all()
               for i in range(y.shape[0]) for j in range(y.shape[1]))  # fmt: skip


def failures(y: np.ndarray) -> int:
    """Count the outputs that are no roll of the first."""
    return sum(not equal_up_to_a_roll(each, y[0]) for each in y)


def example(kind: str, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if kind == "floats":
        return generator.normal(size=shape).astype(np.float32)
    if kind == "many ties":
        return generator.integers(-1, 2, size=shape).astype(np.float32)
    x = np.zeros(shape, np.float32)
    x[2, 2], x[2, 3], x[4 % shape[0], 5] = 5, 3, 4  # norms 25 = 9 + 16: tied, not equivalent
    return x


@pytest.mark.slow
@pytest.mark.parametrize(("method", "params"), ARMS, ids=lambda value: str(value))
def test_every_shift_of_every_map(method: str, params: dict[str, Any]) -> None:
    counted = 0
    for shape, stride in SHAPES:
        apply = jax.jit(lambda x, s=stride: pool(x, method, stride=s, return_phase=True, **params))
        for kind in ("floats", "many ties", "inequivalent ties"):
            x = example(kind, shape)
            y, phase = (np.asarray(part) for part in apply(shifted(x)))
            assert failures(y) == 0, (shape, kind)
            counted += len(y)
            if kind == "floats":
                assert predicted_rolls(y, phase, stride, shape)
    assert counted == 3 * (64 + 54 + 48)


def predicted_rolls(y: np.ndarray, phase: np.ndarray, stride: tuple[int, int], shape: Any) -> bool:
    """y(roll(x, d)) == roll(y(x), floor((i + d) / s)) for the phase i of x, where none ties."""
    first = divmod(int(phase[0]), stride[1])
    for number, each in enumerate(y):
        move = divmod(number, shape[1])
        steps = [(i + d) // s for i, d, s in zip(first, move, stride, strict=True)]
        if not (np.roll(y[0], steps, (0, 1)) == each).all():
            return False
    return True


@pytest.mark.slow
def test_float64_and_bfloat16() -> None:
    x = example("floats", (8, 8, 3))
    with jax.enable_x64(True):
        y = np.asarray(pool(shifted(x.astype(np.float64) + 1e-9), "aps", stride=2))
        assert y.dtype == np.float64 and failures(y) == 0
        one = np.ones((4, 4, 1))
        one[1, 1] = 1 + 2.0**-45  # a difference that float32 norms cannot see
        assert pool(one, "aps", stride=2).max() == 1 + 2.0**-45
    half = jnp.asarray(shifted(x), jnp.bfloat16)
    y = pool(half, "aps", stride=2)
    assert y.dtype == jnp.bfloat16 and failures(np.asarray(y, np.float32)) == 0


@pytest.mark.parametrize("p", [1, 2, INF])
def test_selects_what_exact_norms_select(p: float) -> None:
    x = np.random.default_rng(1).normal(size=(50, 6, 9, 4)).astype(np.float32)
    parts = np.stack([x[:, i::3, j::3] for i in range(3) for j in range(3)], 1).astype(np.float64)
    norms = np.abs(parts).max((2, 3, 4)) if p == INF else (np.abs(parts) ** p).sum((2, 3, 4))
    y, phase = pool(x[:, :, :9], "aps", stride=3, p=p, return_phase=True)
    np.testing.assert_array_equal(phase, norms.argmax(1))
    np.testing.assert_array_equal(y, parts[np.arange(50), norms.argmax(1)].astype(np.float32))


def test_norms_do_not_depend_on_the_order_of_their_values() -> None:
    x = example("floats", (8, 8, 3)) * np.float32(1e10)
    for p in (1, 2):
        digits = [np.asarray(d) for d in polyphase.norms(shifted(x), stride=(8, 8), p=p)]
        rows = np.stack(digits, -1)  # each pixel is a component of its own
        assert all((np.sort(r, 0) == np.sort(rows[0], 0)).all() for r in rows)
        whole = np.stack(polyphase.norms(jnp.asarray(shifted(x)), stride=(1, 1), p=p), -1)
        assert (whole == whole[0]).all()


def test_ties_are_counted_and_sown() -> None:
    x = np.stack([example("floats", (8, 8, 1)), example("inequivalent ties", (8, 8, 1))])
    choice = polyphase.choose(jnp.asarray(x), stride=(2, 2))
    np.testing.assert_array_equal(choice.ties, [0, 1])
    _, state = Pool("aps", stride=2).apply({}, x, mutable="intermediates")
    np.testing.assert_array_equal(state["intermediates"]["ties"][0], [0, 1])
    constant = polyphase.choose(jnp.zeros((8, 8, 2)), stride=(2, 2))
    assert int(constant.ties) == 3 and int(constant.phase) == 0


@pytest.mark.parametrize("channels", [1, 7, 8, 9, 31, 64, 513])
def test_halves_of_the_channels_add_up_to_their_sum(channels: int) -> None:
    values = jax.random.bits(jax.random.key(0), (3, 5, channels))
    expected = np.asarray(values).sum(axis=-1, dtype=np.uint32)
    np.testing.assert_array_equal(polyphase._channel_sum(values), expected)


def test_fingerprints_see_all_but_the_shift() -> None:
    generator = np.random.default_rng(2)
    x = generator.integers(0, 2, size=(400, 4, 6, 1)).astype(np.float32)
    marks = np.asarray(polyphase.fingerprints(jnp.asarray(x), (1, 1)))[:, 0]
    rolled = np.roll(x, (1, 5), (1, 2))
    np.testing.assert_array_equal(polyphase.fingerprints(jnp.asarray(rolled), (1, 1))[:, 0], marks)
    canonical = [min(each.tobytes() for each in shifted(one)) for one in x]
    same = np.equal.outer(np.array(canonical), np.array(canonical))
    np.testing.assert_array_equal(np.equal.outer(marks, marks), same)
    mirrored = np.asarray(polyphase.fingerprints(jnp.asarray(-x[:1]), (1, 1)))
    assert mirrored[0, 0] != marks[0]


def test_zero_has_one_sign() -> None:
    x = example("inequivalent ties", (8, 8, 1))
    np.testing.assert_array_equal(
        polyphase.fingerprints(jnp.asarray(x), (2, 2)),
        polyphase.fingerprints(jnp.asarray(np.where(x == 0, -0.0, x)), (2, 2)),
    )


def test_unpool_is_the_transpose_and_undoes_shifts() -> None:
    x = example("floats", (6, 9, 2))
    y, phase = pool(shifted(x), "aps", stride=3, return_phase=True)
    back = np.asarray(unpool(y, phase, stride=3, size=(6, 9)))
    np.testing.assert_array_equal(back, shifted(back[0]))  # U(D(T x)) = T U(D(x))
    np.testing.assert_array_equal(pool(back, "aps", stride=3, phase=phase), y)
    (transposed,) = jax.vjp(lambda v: polyphase.sample(v, phase, stride=(3, 3)), shifted(x))[1](y)
    np.testing.assert_array_equal(transposed, back)


def test_a_shared_phase() -> None:
    x = example("floats", (8, 8, 2))
    other = x[..., :1] * 2 + 1
    _, phase = pool(x, "aps", stride=2, return_phase=True)
    y, same = pool(other, "max_aps", window=1, stride=2, phase=phase, return_phase=True)
    i, j = divmod(int(phase), 2)
    np.testing.assert_array_equal(y, other[i::2, j::2])
    assert int(same) == int(phase)
    lps = Pool("lps", stride=2)
    variables = lps.init(jax.random.key(0), x)
    np.testing.assert_array_equal(lps.apply(variables, x, phase=phase), x[i::2, j::2])
    known = jax.jit(lambda v: pool(v, "aps", stride=2, phase=phase))  # a constant of the program
    np.testing.assert_array_equal(known(x), x[i::2, j::2])


@pytest.mark.slow
@pytest.mark.parametrize("stride", [2, pytest.param(4, marks=pytest.mark.long)])
def test_lps(stride: int) -> None:
    x = example("floats", (8, 8, 3))
    module = Pool("lps", stride=stride)
    variables = module.init(jax.random.key(1), x)
    apply = jax.jit(lambda v, x: module.apply(v, x, return_phase=True))
    y, phase = apply(variables, shifted(x))
    assert failures(np.asarray(y)) == 0
    assert predicted_rolls(np.asarray(y), np.asarray(phase), (stride, stride), x.shape)
    # Training blends; a cold temperature with the same noise is one component, hot is the mean.
    train = {"train": True, "rngs": {"pool": jax.random.key(2)}}
    cold = module.apply(variables, x, temperature=1e-4, **train)
    hot = module.apply(variables, x, temperature=jnp.asarray(1e6), **train)
    parts = polyphase.components(jnp.asarray(x), (stride, stride))
    assert any(np.allclose(cold, part, atol=1e-5) for part in parts)
    np.testing.assert_allclose(hot, parts.mean(0), atol=1e-5)
    _, weights = module.apply(variables, x, return_phase=True, **train)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    grads = jax.grad(lambda v: jnp.sum(module.apply(v, x, **train) ** 2))(variables)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.slow
def test_canonical_of_a_layer() -> None:
    x = example("floats", (8, 8, 3))
    module = Pool("canonical", method="gated", window=2, stride=2)
    variables = module.init(jax.random.key(0), x)
    y = np.asarray(module.apply(variables, shifted(x)))
    assert failures(y) == 0
    assert module == Pool("canonical", method="gated", window=2, stride=2)
    assert module.window == (2, 2) and module.stride == (2, 2)


def test_gradients_flow_through_the_component_alone() -> None:
    x = jnp.asarray(example("floats", (4, 6, 2)))
    y, phase = pool(x, "aps", stride=(2, 3), return_phase=True)
    gradient = jax.grad(lambda v: jnp.sum(pool(v, "aps", stride=(2, 3)) ** 2))(x)
    expected = unpool(2 * y, phase, stride=(2, 3))
    np.testing.assert_array_equal(gradient, expected)
    hessian = jax.jit(jax.hessian(lambda v: jnp.sum(pool(v, "aps", stride=(2, 3)) ** 2)))(x)
    diagonal = np.diag(np.asarray(hessian).reshape(48, 48))
    np.testing.assert_array_equal(diagonal.reshape(x.shape), 2.0 * (expected != 0))


# Controls: what the suite must be able to see.


def by_first_index(x: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    parts = polyphase.components(jnp.asarray(x), (2, 2))
    norms = jnp.sum(jnp.square(parts), axis=(-3, -2, -1)).astype(dtype)
    return np.asarray(polyphase.sample(jnp.asarray(x), jnp.argmax(norms, -1), stride=(2, 2)))


def test_first_index_fails_at_ties() -> None:
    x = example("inequivalent ties", (16, 16, 1))
    moved = np.stack([np.roll(x, d, 1) for d in range(16)])
    assert failures(by_first_index(moved)) == 8
    assert failures(np.asarray(pool(moved, "aps", stride=2))) == 0


def test_bfloat16_norms_fail() -> None:
    x = shifted(example("floats", (8, 8, 3), seed=3))
    close = 1 + x / 1024  # norms closer than bfloat16 can tell apart
    assert failures(by_first_index(close, jnp.bfloat16)) > 0
    assert failures(np.asarray(pool(close, "aps", stride=2))) == 0


def test_one_phase_per_channel_fails() -> None:
    x = shifted(example("floats", (8, 8, 3)))
    each = np.concatenate([pool(x[..., c : c + 1], "aps", stride=2) for c in range(3)], -1)
    assert failures(each) > 0


def test_decimation_and_zero_padding_fail() -> None:
    x = shifted(example("floats", (8, 8, 3)))
    assert failures(np.asarray(pool(x, "decimate", stride=2))) == 48  # all but the lattice
    blurred = pool(x, "blur", stride=1, padding="ZEROS")
    assert failures(np.asarray(pool(blurred, "aps", stride=2))) > 0


def test_bad_input() -> None:
    x = np.ones((2, 6, 6, 1), np.float32)
    y, phase = pool(x, "aps", stride=2, return_phase=True)
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: pool(x, "aps", stride=4), ValueError, r"stride: \(4, 4\) does not divide the map"),
        (lambda: pool(x, "aps", stride=2, padding="SAME"), ValueError, "padding: expected 'CIRC"),
        (lambda: pool(x, "aps", stride=2, phase=phase[:1]), ValueError, "phase: expected shape"),
        (lambda: pool(x, "aps", stride=2, phase=phase + 4), ValueError, "phase: expected 0 to 3"),
        (lambda: pool(x, "max", window=2, phase=phase), ValueError, "phase: pool 'max' selects no"),
        (lambda: pool(x, "max", window=2, return_phase=True), ValueError, "return_phase: pool"),
        (lambda: unpool(y, phase, stride=2, size=(7, 6)), ValueError, r"size: expected \(6, 6\)"),
        (lambda: unpool(y, phase > 0, stride=2), TypeError, "phase: expected integers"),
        (lambda: jax.jit(lambda v: pool(v, "aps", stride=5))(x), ValueError, "does not divide"),
        (lambda: Pool("lps", stride=2).init(jax.random.key(0), x[:, :5]), ValueError, "divide"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()

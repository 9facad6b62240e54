"""`shift_logits` against rolling and asking one image at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.invariance import logits as module
from cnnjax.invariance.logits import shift_logits
from cnnjax.ops import shifts

IMAGES = np.random.default_rng(0).integers(0, 9, (3, 4, 6, 2)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).integers(-3, 4, (4 * 6 * 2, 5)).astype(np.float32)


def apply(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def one_by_one(offsets, family):
    moved = [[shifts.move(x, o, family) for o in offsets] for x in IMAGES]
    return np.asarray([[apply(y[None])[0] for y in row] for row in moved])


def test_all_circular_shifts_row_major():
    expected = one_by_one(shifts.all_offsets((4, 6)), "circular")
    np.testing.assert_array_equal(shift_logits(apply, IMAGES), expected)


@pytest.mark.parametrize("boundary", ["zeros", "edge", "reflect"])
@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_a_radius_in_chunks_of_any_size(boundary, batch_size):
    expected = one_by_one(shifts.grid(1), boundary)
    found = shift_logits(apply, IMAGES, 1, boundary, batch_size=batch_size)
    np.testing.assert_array_equal(found, expected)


def test_a_list_of_offsets_and_one_shift():
    offsets = [(0, 0), (2, -5)]
    expected = one_by_one(offsets, "circular")
    np.testing.assert_array_equal(shift_logits(apply, IMAGES, offsets), expected)
    np.testing.assert_array_equal(shift_logits(apply, IMAGES, [(2, -5)]), expected[:, 1:])


def test_crop_and_canvas_take_their_margin_for_all():
    def mean(x):
        return x.mean(axis=(1, 2))

    assert shift_logits(mean, IMAGES, boundary="crop:margin=1").shape == (3, 9, 2)
    np.testing.assert_allclose(
        shift_logits(mean, IMAGES, boundary="canvas:margin=2"),
        np.repeat(IMAGES.sum(axis=(1, 2))[:, None] / 80, 25, axis=1),
        rtol=1e-6,
    )


def test_one_compilation_serves_all_weights():
    traces = []

    def with_weights(weights, x):
        traces.append(1)
        return x.reshape(len(x), -1) @ weights

    first = shift_logits(with_weights, IMAGES, 1, "zeros", variables=WEIGHTS)
    count = len(traces)
    second = shift_logits(with_weights, IMAGES, 1, "zeros", variables=2 * WEIGHTS)
    np.testing.assert_array_equal(second, 2 * first)
    assert len(traces) == count


def test_memory_bounds_the_chunk_and_refuses_what_cannot_fit():
    def one(v, x, i, o):
        return apply(shifts.move(x[i], o))

    offsets = shifts.all_offsets((4, 6))
    x = jnp.asarray(IMAGES)
    rows = [
        module.rows_that_fit(one, None, x, offsets, memory=m, most=256)
        for m in (6000, 20000, 10**9)
    ]
    assert rows == sorted(rows) and rows[0] < rows[1] < rows[2] == 72
    with pytest.raises(ValueError, match="fewer images a call"):
        shift_logits(apply, IMAGES, memory=1000)


def batch_statistics(x):
    axes = {"axis": (0, 1, 2), "keepdims": True}
    x = (x - x.mean(**axes)) / (x.std(**axes) + 1e-3)
    return apply(x)


def hidden_randomness(x):
    noise = jax.random.normal(jax.random.key(0), (len(x), 5))
    return apply(x) + 10 * noise


@pytest.mark.parametrize(
    ("function", "arguments", "error", "words"),
    [
        (batch_statistics, {}, ValueError, "different batches"),
        (hidden_randomness, {}, ValueError, "different batches"),
        (lambda x: apply(x) / 0.0 * 0.0, {}, ValueError, "not finite for image 0"),
        (lambda x: apply(x) / 0.0, {}, ValueError, "not finite for image 0"),
        (lambda x: x, {}, ValueError, r"logits \(batch, classes\)"),
        (apply, {"shifts": "some"}, ValueError, "expected 'all'"),
        (apply, {"boundary": "zeros"}, ValueError, "endless"),
        (apply, {"shifts": 2, "boundary": "crop:margin=1"}, ValueError, "beyond the margin"),
        (apply, {"boundary": "crop:margin=2"}, ValueError, "leaves nothing"),
        (apply, {"batch_size": 0}, ValueError, "batch_size"),
        (None, {}, TypeError, "expected a function"),
    ],
)
def test_bad_input_is_one_line(function, arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        shift_logits(function, IMAGES, **arguments)
    assert "\n" not in str(caught.value)


def test_images_have_four_axes():
    with pytest.raises(ValueError, match=r"N, H, W, C"):
        shift_logits(apply, IMAGES[0])


def test_float64_logits_are_not_rounded() -> None:
    """A certificate compares with `==`: what float32 would round away must be seen."""
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(1, 4, 4, 1))

        def apply(images: jax.Array) -> jax.Array:
            return 2.0**30 + images[:, 0, 0]

        logits = shift_logits(apply, x)
        assert logits.dtype == np.float64
        assert len(np.unique(logits)) == 16

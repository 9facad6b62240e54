"""Every case of tests/ops/golden.json: outputs of the published implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnjax.layers.pooling import Pool, pool

GOLDEN = Path(__file__).parents[1] / "ops" / "golden.json"
CASES = json.loads(GOLDEN.read_text("utf-8"))["cases"]


def test_all_cases_are_here() -> None:
    assert len(CASES) == 69
    assert {case["op"] for case in CASES} == {
        "max", "mean", "sum", "lp", "softpool", "gem", "blur", "aps", "aps_blur",
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['op']}-{case['source']}")
def test_golden(case: dict[str, Any]) -> None:
    x = np.asarray(case["x"], np.float32)
    params = dict(case["params"])
    y = pool(x, case["op"], **params)
    np.testing.assert_allclose(y, np.asarray(case["y"]), rtol=1e-6, atol=2e-7)
    if case["op"] in ("max", "sum", "aps"):
        np.testing.assert_array_equal(y, np.asarray(case["y"], np.float32))


# The window [1, 2, 3, 4] and arange(16), worked out in float64 by hand.
WINDOW = [
    ("softpool", {}, 3.49265273458577),
    ("lse", {"r": 1.0}, 3.053895337441305),
    ("lse", {"r": 10.0}, 3.861375103984048),
    ("gem", {"p": 3.0}, 2.924017738212866),
    ("lp", {"p": 2.0, "reduce": "sum"}, 5.477225575051661),
    ("lp", {"p": 2.0}, 2.7386127875258306),
    ("median", {}, 2.5),
    ("max_mean", {"combine": "sum"}, 6.5),
    ("haar", {}, 5.0),
]


@pytest.mark.parametrize(("method", "params", "expected"), WINDOW)
def test_one_window(method: str, params: dict[str, Any], expected: float) -> None:
    x = np.asarray([[1, 2], [3, 4]], np.float32)[..., None]
    size = {"stride": 2} if method == "haar" else {"window": 2}
    np.testing.assert_allclose(pool(x, method, **size, **params).item(), expected, rtol=3e-7)


def test_zeiler_evaluation() -> None:
    x = np.asarray([[1, 2], [3, 4]], np.float32)[..., None]
    assert Pool("stochastic", window=2).apply({}, x).item() == 3.0


GRID = [
    ("max", {"window": 2}, [[5, 7], [13, 15]]),
    ("mean", {"window": 2}, [[2.5, 4.5], [10.5, 12.5]]),
    ("blur", {"filter_size": 3}, [[5, 6], [9, 10]]),
    ("blur", {"filter_size": 4}, [[5, 6], [9, 10]]),
    ("max_blur", {"window": 2}, [[8.75, 9.75], [12.75, 13.75]]),
    ("aps", {}, [[5, 7], [13, 15]]),
]


@pytest.mark.parametrize(("method", "params", "expected"), GRID)
def test_arange_16_circular(method: str, params: dict[str, Any], expected: list[Any]) -> None:
    x = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    y = pool(x, method, stride=2, padding="CIRCULAR", **params)
    np.testing.assert_array_equal(y[..., 0], expected)

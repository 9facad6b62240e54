"""scripts/peers: the plain scripts that `cnnjax bench study` measures do the study's work."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import config as configs
from cnnjax import data, pool
from cnnjax.bench import study as bench
from cnnjax.bench import torch as optional
from cnnjax.bench.measure import Candidate
from cnnjax.study.judge import places
from experiments.pooling_and_stride import STUDY

GRID = bench.Grid(seeds=1, epochs=3, pools="max,aps", strides="3")
SCRIPTS = [
    pytest.param("flax", id="flax"),
    pytest.param("torch", id="torch", marks=pytest.mark.extra),
]


def script(name: str) -> Any:
    """Return the script as a module."""
    pytest.importorskip(name)
    source = importlib.util.spec_from_file_location(
        f"peer_{name}", bench.PEERS / f"{name}_study.py"
    )
    assert source is not None and source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("method", ["max", "min", "mean", "sum", "max_blur", "aps"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_its_pools_are_ours(name: str, method: str, stride: int) -> None:
    peer = script(name)
    x = np.random.default_rng(0).random((2, 12, 12, 3), np.float32)
    window = {} if method == "aps" else {"window": 3}
    want = pool(jnp.asarray(x), method, stride=stride, padding="CIRCULAR", **window)
    if name == "torch":
        given = optional.torch().from_numpy(x).permute(0, 3, 1, 2)
        got = peer.POOLING[method](given, stride).permute(0, 2, 3, 1).numpy()
    else:
        got = peer.POOLING[method](jnp.asarray(x), stride)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_choices_are_the_studys(name: str) -> None:
    peer, base = script(name), STUDY.base
    assert base.widths == peer.WIDTHS and base.kernel_size == peer.KERNEL
    assert base.window == peer.WINDOW and base.batch_size == peer.BATCH and base.lr == peer.RATE
    assert base.train_shift == peer.REACH and base.warmup == peer.WARMUP
    assert base.optimizer == "adam" and base.schedule == "cosine" and base.weight_decay == 0
    assert STUDY.axes["pool"] == peer.POOLS and base.epochs == bench.GRIDS["whole grid"].epochs
    whole = bench.GRIDS["whole grid"]
    assert STUDY.axes["stride"] == tuple(map(int, whole.strides.split(",")))
    assert STUDY.axes["seed"] == tuple(range(whole.seeds)) and whole.pools.split(",") == [
        *peer.POOLS
    ]
    loaded = data.load(base.dataset)
    x, y, x_test, _ = peer.load()
    assert len(y) == len(loaded.train.labels) and len(x_test) == len(loaded.test.labels)
    square = np.asarray(x).reshape(-1, 36, 36)
    ours = np.concatenate([loaded.train.images, loaded.test.images])[..., 0]
    theirs = np.concatenate([square, np.asarray(x_test).reshape(-1, 36, 36)])
    ink = [np.sort(np.round(part.reshape(len(part), -1).sum(1))) for part in (theirs, ours / 255)]
    np.testing.assert_allclose(*ink, atol=1)
    side = np.rint(np.linspace(-10, 10, 7)).astype(int)
    assert np.unique(places(configs.Config(dataset=base.dataset), loaded)).tolist() == side.tolist()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_learns_and_aps_is_consistent(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    text = bench.peer(bench.PEERS / f"{name}_study.py", GRID, "places", 2, str(tmp_path))
    rows = {row["pool"]: row for row in csv.DictReader(io.StringIO(text))}
    assert set(rows) == {"max", "aps"}
    assert float(rows["aps"]["consistency"]) == pytest.approx(1.0, abs=2e-3)
    assert float(rows["aps"]["accuracy_away"]) > 0.7
    assert 0.8 < float(rows["max"]["accuracy"]) <= 1 > float(rows["max"]["consistency"]) > 0.7


def test_what_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = bench.candidates("tiny", "49 places", "one process", warm=False)
    assert isinstance(found["cnnjax"], Candidate) and found["torch"] == optional.ABSENT
    monkeypatch.setattr(bench, "PEERS", tmp_path / "nowhere")
    found = bench.candidates("tiny", "49 places", "one process", warm=False)
    assert found["flax"] == found["torch"] == bench.NO_PEERS


def test_a_run_that_fails_is_one_line() -> None:
    with pytest.raises(ChildProcessError, match=r"-c.*: exit status 1: ValueError: no"):
        bench.run("-c", "raise ValueError('no')")


def test_warm_has_run_before_and_cold_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, str]] = []

    def note(grid: bench.Grid, battery: str, cache: str) -> None:
        ran.append((battery, cache))

    monkeypatch.setattr(bench, "study", note)
    monkeypatch.setattr(bench, "PEERS", Path("nowhere"))
    for warm in (False, True, True):
        made = bench.candidates("tiny", "all shifts", "one process", warm=warm)["cnnjax"]
        assert isinstance(made, Candidate)
        made.run()
    caches = [cache for _, cache in ran]
    assert caches[1] == caches[2] == caches[3] != caches[0] and len(ran) == 4

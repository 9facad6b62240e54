"""`cnnjax bench`: interleaving, ratios, summary, JSON, mistakes; every workload's cells once."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.bench import WORKLOADS, compilation, conv, measure, pooling, seeds, torch
from cnnjax.bench import data as bench_data
from cnnjax.bench.measure import Candidate, Cell
from cnnjax.cli import main
from cnnjax.cli.bench import line
from cnnjax.config import Config
from cnnjax.ops import polyphase


def sleeping(seconds: float) -> Candidate:
    return Candidate(lambda: time.sleep(seconds))


def test_candidates_are_interleaved_and_take_turns_at_going_first():
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measure.interleaved(runs, 1e-9)
    assert [len(times[name]) for name in "abc"] == [measure.LEAST_ROUNDS] * 3
    rounds = ["".join(order[i : i + 3]) for i in range(0, len(order), 3)]
    assert rounds[-5:] == ["abc", "bca", "cab", "abc", "bca"]
    assert rounds[:-5] == ["abc"]  # one to warm up: a second would take longer than was asked for


def test_rows_have_medians_ratios_and_reasons():
    made = {"ours": sleeping(0.004), "slow": sleeping(0.016), "none": "not installed"}
    rows = measure.measure(Cell({"size": "3"}, lambda: made), seconds=0.05)
    ours, slow, none = rows
    assert none == {"size": "3", "candidate": "none", "absent": "not installed"}
    assert ours["ratio"] == 1 and ours["size"] == "3"
    assert slow["ratio"] > 1.5
    assert all(row["min_ms"] <= row["median_ms"] <= row["max_ms"] for row in (ours, slow))
    assert slow["min_ms"] >= 15 and slow["rounds"] >= measure.LEAST_ROUNDS


def test_a_candidate_is_left_out():
    made = {"ours": sleeping(0.001), "slow": sleeping(60), "none": "not installed"}
    rows = measure.measure(Cell({}, lambda: made), seconds=0.01, without=["slow"])
    assert [row["candidate"] for row in rows] == ["ours", "none"]
    with pytest.raises(ValueError, match="expected some, not all, of ours, slow, none"):
        measure.measure(Cell({}, lambda: made), seconds=0.01, without=["ours", "slow"])


def test_an_accelerator_is_handed_its_calls_in_bursts(monkeypatch):
    started, awaited = [], []

    def start() -> int:
        time.sleep(0.001)
        started.append(len(started))
        return started[-1]

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    candidate = measure.queued(start, awaited.append)
    candidate.run()
    assert len(started) == candidate.calls == measure.BURST and awaited == [measure.BURST - 1]
    (row,) = measure.measure(Cell({}, lambda: {"ours": candidate}), seconds=1e-9)
    assert 1 <= row["min_ms"] <= row["median_ms"] < measure.BURST  # of one call, not of a burst
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert measure.queued(start, awaited.append).calls == 1
    assert measure.queued(start, awaited.append, in_a_row=3).calls == 3


def test_summary_is_the_geometric_mean_and_the_least_over_a_group():
    rows = [
        {"method": "max", "size": str(i), "candidate": "flax", "ratio": ratio}
        for i, ratio in enumerate((2.0, 8.0))
    ]
    rows += [{"method": "aps", "size": "1", "candidate": "flax", "ratio": 5.0}]
    rows += [{"method": "aps", "size": "1", "candidate": "torch", "absent": "no"}]
    aps, largest = measure.summarise(rows, ("method",))
    assert aps["geometric_mean"] == pytest.approx(5) and aps["cells"] == 1
    assert largest["geometric_mean"] == pytest.approx(4) and largest["least"] == 2


def test_compiled_candidates_tell_their_memory():
    candidate = measure.compiled(lambda x: jnp.sort(x @ x.T, 0).sum(), jnp.ones((64, 64)))
    assert candidate.temporary_bytes >= 64 * 64 * 4
    np.testing.assert_array_equal(candidate.run(), 64.0**3)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_name_their_cells(name):
    workload = importlib.import_module(WORKLOADS[name][0])
    labels = [cell.labels for cell in workload.cells()]
    assert len({tuple(label.items()) for label in labels}) == len(labels)
    assert all(key in label for label in labels for key in workload.GROUP)


# Beside aps and max_aps is our own max: another pool of the same stride.
@pytest.mark.parametrize("method", [m for m in pooling.OTHERS if m not in pooling.AROUND_APS])
def test_pooling_candidates_do_the_same_work(method, monkeypatch):
    monkeypatch.setattr(pooling, "SHAPE", (2, 9, 8, 3))
    x = jax.random.normal(jax.random.key(0), pooling.SHAPE)
    ours, stock, _ = pooling.OTHERS[method](3, 2)
    for other in stock.values():
        g = jnp.ones(jax.eval_shape(ours, x).shape)
        got, want = (jax.jit(pooling.with_gradient(f))(x, g) for f in (ours, other))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_max_aps_ties_in_its_benchmark():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 64))
    _, choice = polyphase.max_aps(x, window=(2, 2), stride=(2, 2), p=float("inf"))
    assert (choice.ties > 0).all()


@pytest.mark.parametrize("name", conv.PASSES)
def test_convolution_candidates_do_the_same_work(name):
    x, kernel = jnp.ones((2, 6, 6, 3)), jnp.arange(108.0).reshape(3, 3, 3, 4)
    g = jnp.ones((2, 6, 6, 4))
    work = conv.PASSES[name]
    got, want = (jax.jit(work(f))(x, kernel, g) for f in (conv.conv, conv.stock))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_without_pytorch_its_column_says_so(monkeypatch):
    monkeypatch.setattr(torch, "torch", lambda: None)
    assert torch.forward(lambda F, x: x, (1, 2, 2, 1)) == torch.ABSENT
    assert torch.forward_backward(lambda F, x: x, (1, 2, 2, 1)) == torch.ABSENT
    assert torch.version() == torch.ABSENT


@pytest.mark.long
@pytest.mark.slow
def test_seeds_have_the_same_numbers_in_every_way(monkeypatch):
    """In processes bit for bit; as one program to rounding."""
    monkeypatch.setattr(seeds, "STEPS", 2)
    monkeypatch.setattr(seeds, "CONFIG", dataclasses.replace(seeds.CONFIG, batch_size=4))
    alone, together = (way(range(3))() for way in (seeds.one_after_another, seeds.vmapped))
    for one, other in zip(alone, together, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, other)


@pytest.mark.slow
@pytest.mark.long
def test_seeds_in_processes_have_the_bits_of_one_after_another():
    ways = (seeds.one_after_another, seeds.processes)
    alone, apart = (way(range(3))() for way in ways)
    assert len(alone) == len(apart) == 3
    for one, other in zip(alone, apart, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def test_jpeg_files_are_read_by_index():
    files = bench_data.JpegFiles.written(16)
    image, label = files[13]
    assert len(files) == bench_data.IMAGES
    assert (image.shape, image.dtype, label) == ((16, 16, 3), np.uint8, 3)
    assert image.std() > 5


def test_what_takes_minutes_runs_once_and_cold():
    calls = []
    made = {name: Candidate(lambda name=name: calls.append(name)) for name in ("ours", "other")}
    rows = measure.measure(Cell({}, lambda: made, once=True), seconds=1.0)
    assert calls == ["ours", "other"] and [row["rounds"] for row in rows] == [1, 1]


def test_images_per_second_are_told():
    cell = Cell({"size": "3"}, lambda: {"ours": sleeping(0.01)}, images=100)
    (row,) = measure.measure(cell, seconds=0.01)
    assert row["images_per_second"] == pytest.approx(100e3 / row["median_ms"])
    assert line(cell.labels, [row]).endswith(" images/s")
    assert line(cell.labels, [{**row, "temporary_bytes": 2_000_000}]).endswith(" images/s 2.0 MB")


def test_compilation_is_done_afresh_and_tells_its_memory(monkeypatch):
    small = Config(net="cnn", widths=(4,), dense=())
    monkeypatch.setattr(compilation, "WORKS", (("small", small, (8, 8, 1)),))
    monkeypatch.setattr(compilation, "BATCH", 2)
    (cell,) = compilation.cells()
    assert cell.labels == {"network": "small", "images": "8x8x1"}
    candidate = cell.make()["cnnjax"]
    first, second = candidate.run(), candidate.run()
    assert first is not second
    assert candidate.temporary_bytes == first.memory_analysis().temp_size_in_bytes > 0
    told = line(cell.labels, measure.measure(cell, seconds=1e-9))
    assert f" {candidate.temporary_bytes / 1e6:.1f} MB" in told


def test_command(monkeypatch, tmp_path, capsys):
    def cells():
        for size in ("1", "2"):
            yield Cell({"pass": "forward", "size": size}, lambda: made)

    made = {"ours": sleeping(0.001), "other": sleeping(0.003), "torch": torch.ABSENT}

    monkeypatch.setattr(conv, "cells", cells)
    path = tmp_path / "bench.json"
    assert main(["bench", "conv", f"--json={path}", "--seconds=0.01"]) == 0
    shown = capsys.readouterr().out
    assert "forward, 2" in shown and torch.ABSENT in shown and "geometric mean" in shown
    report = json.loads(path.read_text())
    assert report["workload"] == "conv" and len(report["rows"]) == 6
    assert {"jax", "commit", "cpu", "threads", "torch"} <= report["machine"].keys()
    other = next(row for row in report["summary"] if row["candidate"] == "other")
    assert other["cells"] == 2 and math.isfinite(other["geometric_mean"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "expected one workload"),
        (["pool"], "did you mean pooling"),
        (["pooling", "conv"], "expected one workload"),
        (["conv", "--only=nowhere"], "--only: no cell of conv"),
        (["pooling", "--only=aps", "--without=flux"], "got flux"),
        (["conv", "--seconds=fast"], "--seconds: expected a number > 0"),
        (["conv", "--seconds=0"], "--seconds: expected a number > 0"),
        (["conv", "--json=no/such/place.json"], "--json: no directory"),
        (["conv", "--threads=3"], "threads"),
    ],
)
def test_mistakes_are_one_line(words, text, capsys):
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert text in error and len(error.splitlines()) == 1


def test_help_lists_the_workloads(capsys):
    assert main(["bench", "--help"]) == 0
    assert set(WORKLOADS) <= set(capsys.readouterr().out.split())

"""TensorBoard, Weights & Biases, MLflow: what they keep, how they fail, and no TensorFlow."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cnnjax.cli.train import main
from cnnjax.train.trackers import TRACKERS, Guarded, trackers
from cnnjax.train.watch import Callback, Several

RUN = {"id": "0123456789ab", "schema": 1, "config": {"lr": 0.1, "widths": [2, 4], "pool": None}}
DONE = {**RUN, "status": "done", "metrics": {"accuracy": 0.75, "test_images": 20}}


def line(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": 6 * epoch,
        "loss": 1.0 / epoch,
        "accuracy": 0.5,
        "images": 40,
        "seconds": 2.0,
    }


def tell(watch: Callback, epochs: int, result: Mapping[str, Any] = DONE) -> None:
    watch.start(RUN)
    for epoch in range(1, epochs + 1):
        watch.epoch(line(epoch))
    watch.end(result)


def opened(name: str, out: Path) -> Several:
    pytest.importorskip(TRACKERS[name].package)
    return Several(trackers([name], out))


def scalars(directory: Path) -> list[tuple[str, int, float]]:
    """Return every scalar of all event files there."""
    events = importlib.import_module("tensorboardX.proto.event_pb2")
    found = []
    for path in directory.glob("events.out.tfevents.*"):
        content = path.read_bytes()
        while content:
            # A record: length (8 bytes), its checksum (4), the event, its checksum (4).
            size = int.from_bytes(content[:8], "little")
            event = events.Event.FromString(content[12 : 12 + size])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            content = content[16 + size :]
    return found


def wandb_records(content: bytes) -> Iterator[Any]:
    """Yield what a .wandb file holds: seven bytes, then records in LevelDB's form of a log.

    A piece has a checksum (4 bytes), a length (2) and a kind (1): whole 1, first 2, middle 3, last
    4. None crosses a block, nor do the seven bytes of its head.
    """
    records = importlib.import_module("wandb.proto.wandb_internal_pb2")
    at, block, record = 7, 2**15, b""
    while at + 7 <= len(content):
        left = block - at % block
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if at + 7 + size > len(content):
            return  # not written to its end yet
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield records.Record.FromString(record)
            record = b""


@pytest.mark.extra
def test_tensorboard_keeps_each_point_once(tmp_path: Path) -> None:
    tell(opened("tensorboard", tmp_path), 1, {**RUN, "status": "stopped"})
    (first,) = (tmp_path / "tensorboard").iterdir()
    first.rename(first.with_name("events.out.tfevents.1.here"))  # names differ by the second
    tell(opened("tensorboard", tmp_path), 2)
    found = scalars(tmp_path / "tensorboard")
    assert [point for point in found if point[0] == "train/loss"] == [
        ("train/loss", 6, 1.0),
        ("train/loss", 12, 0.5),
    ]
    assert ("train/images_per_second", 6, 20.0) in found
    assert ("result/accuracy", 12, 0.75) in found


@pytest.mark.extra
def test_mlflow_keeps_each_point_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tell(opened("mlflow", tmp_path), 1, {**RUN, "status": "stopped"})
    tell(opened("mlflow", tmp_path), 2)
    client = importlib.import_module("mlflow").MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("cnnjax").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(6, 1.0), (12, 0.5)]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["result/accuracy"] == 0.75
    assert run.data.params == {"lr": "0.1", "widths": "[2, 4]", "pool": "None"}


@pytest.mark.extra
def test_wandb_offline_keeps_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = opened("wandb", tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    tell(watch, 2)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert RUN["id"] in path.name
    deadline = time.monotonic() + 30
    # A process of W&B's own writes the file, and may still do so when the run has finished.
    while not any(record.HasField("exit") for record in wandb_records(path.read_bytes())):
        assert time.monotonic() < deadline, "the run's end was never written"
        time.sleep(0.05)
    kept = list(wandb_records(path.read_bytes()))
    (run,) = (record.run for record in kept if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert RUN["config"].items() <= config.items()
    points = [
        (item.nested_key[0], record.history.step.num, json.loads(item.value_json))
        for record in kept
        for item in record.history.item
    ]
    assert [point for point in points if point[0] == "train/loss"] == [
        ("train/loss", 6, 1.0),
        ("train/loss", 12, 0.5),
    ]
    assert ("train/images_per_second", 6, 20.0) in points
    summary = [(item.key, item.value_json) for record in kept for item in record.summary.update]
    assert {("status", '"done"'), ("accuracy", "0.75")} <= {*summary}


@pytest.mark.extra
def test_wandb_without_a_key_is_one_line(tmp_path: Path) -> None:
    """In a process of its own: W&B remembers its mode."""
    pytest.importorskip("wandb")
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    words = ["train", "--watch=wandb", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-m", "cnnjax", *words],
        env={**env, "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("cnnjax train: watch: wandb does not start: No API key")
    assert done.stderr.count("\n") == 1


@pytest.mark.extra
@pytest.mark.parametrize("name", TRACKERS)
def test_none_imports_tensorflow(name: str, tmp_path: Path) -> None:
    """Not even where there is one to import."""
    pytest.importorskip(TRACKERS[name].package)
    (tmp_path / "tensorflow.py").write_text("print('tensorflow is imported')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", CODE, name, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr


CODE = f"""
import sys
from cnnjax.train.trackers import trackers
(watch,) = trackers([sys.argv[1]], sys.argv[2])
watch.start({RUN})
watch.epoch({line(1)})
watch.end({DONE})
assert "tensorflow" not in sys.modules
print("told")
"""


class Broken(Callback):
    """Cannot be told anything any more."""

    def __init__(self) -> None:
        self.calls = 0

    def epoch(self, line: Mapping[str, Any]) -> None:
        self.calls += 1
        raise RuntimeError("the server\nis gone")


def test_a_tracker_that_breaks_costs_one_warning() -> None:
    broken = Broken()
    with pytest.warns(RuntimeWarning, match="watch: x is lost, training goes on: the server is g"):
        tell(Guarded("x", broken), 3)
    assert broken.calls == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--watch=wandb"], "watch: expected --out=DIR"),
        (["--watch=wandbb", "--out=x"], "watch: unknown name 'wandbb'; did you mean wandb"),
        (["--watch=", "--out=x"], "watch: unknown name ''"),
        (
            ["--watch=mlflow", "--out=x"],
            "watch: mlflow needs the package mlflow (no such thing); pip install 'cnnjax[mlflow]'",
        ),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError("no such thing")

    monkeypatch.setattr("cnnjax.train.trackers.importlib.import_module", missing)
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1

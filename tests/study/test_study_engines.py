"""One study, every engine, whatever is killed: finished trials are kept and the table is the same.

Ray: an instance of its own, and three nodes on this host; Slurm: submitit's local executor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from study_commands import SLOWER, Command, finish, numbers, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.extra]

RAY_ENV = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module", autouse=True)
def _private_ray() -> Iterator[None]:
    """Let cluster and drivers agree: no tokens, no statistics."""
    with mock.patch.dict(os.environ, RAY_ENV):
        yield


def stat(pid: int) -> tuple[int, str]:
    """Return the parent and the state of a process; (0, "Z") of none."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, "Z"
    return int(words[1]), words[0]


def descendants(pid: int) -> dict[int, bytes]:
    """Return the command lines of all processes below one, by process id."""
    everyone = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    below = {pid}
    for _ in range(10):
        below |= {p for p in everyone if stat(p)[0] in below}
    found = {}
    for p in below - {pid}:
        with contextlib.suppress(OSError):
            found[p] = Path(f"/proc/{p}/cmdline").read_bytes()
    return found


def busy_worker(driver: int) -> int:
    """Return the process that runs a trial for this driver."""
    for _ in range(600):
        for pid, words in descendants(driver).items():
            if words.startswith(b"ray::trial") or b"submitit.core._submit" in words:
                return pid
        time.sleep(0.05)
    raise AssertionError("no worker is busy")


def wait_for_training(out: Path) -> None:
    """Return once a trial that has no result yet is in the middle of its epochs."""
    for _ in range(3000):
        for path in out.glob("trials/*/metrics.jsonl"):
            if not (path.parent / "result.json").exists() and path.stat().st_size:
                return
        time.sleep(0.01)
    raise AssertionError("no trial is training")


def left_over(pids: Mapping[int, bytes], seconds: float = 90) -> dict[int, bytes]:
    """Return those of the processes that have not ended within so many seconds."""
    deadline = time.monotonic() + seconds
    while left := {pid: words for pid, words in pids.items() if stat(pid)[1] != "Z"}:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return {}


ENGINES = [
    pytest.param("ray", ["--engine=ray", "--workers=1"], id="ray"),
    pytest.param("submitit", ["--engine=slurm", "--address=local", "--workers=1"], id="slurm"),
]


@pytest.mark.parametrize("victim", ["worker", "driver"])
@pytest.mark.parametrize(("package", "words"), ENGINES)
def test_kill_9_loses_nothing_finished(
    command: Command,
    tmp_path: Path,
    calm: pd.DataFrame,
    package: str,
    words: list[str],
    victim: str,
) -> None:
    pytest.importorskip(package)
    out = tmp_path / "out"
    process = command(*SLOWER, f"--out={out}", *words)
    wait_for("trials/*/result.json", out)
    done = {path: path.read_bytes() for path in out.glob("trials/*/result.json")}
    below = descendants(process.pid)
    if victim == "worker":
        wait_for_training(out)
        os.kill(busy_worker(process.pid), signal.SIGKILL)
    else:
        process.kill()
        process.communicate()
        process = command(*SLOWER, f"--out={out}", *words)
    status, _, errors = finish(process)
    assert status == 0, errors
    assert ("crashed" in errors) == (victim == "worker")
    assert {path: path.read_bytes() for path in done} == done
    pd.testing.assert_frame_equal(numbers(out), calm)
    assert not list(out.glob("**/*.tmp"))
    assert not left_over(below)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three Ray nodes on this host: a head that runs no trial, and two that do."""
    pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves files to be closed by the garbage collector
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 80_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        cluster.two = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]  # type: ignore[attr-defined]
        cluster.wait_for_nodes()
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_kill_9_of_a_node(
    command: Command, tmp_path: Path, calm: pd.DataFrame, cluster: Any
) -> None:
    out = tmp_path / "out"
    process = command(*SLOWER, f"--out={out}", "--engine=ray", f"--address={cluster.address}")
    wait_for("trials/*/result.json", out)
    done = {path: path.read_bytes() for path in out.glob("trials/*/result.json")}
    cluster.remove_node(cluster.two[1], allow_graceful=False)  # SIGKILL of all its processes
    status, _, errors = finish(process)
    assert status == 0, errors
    assert {path: path.read_bytes() for path in done} == done
    pd.testing.assert_frame_equal(numbers(out), calm)

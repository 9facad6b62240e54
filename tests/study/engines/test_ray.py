"""The Ray engine on real instances: one of its own, and one made of several nodes on this host."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_up
import pytest

from cnnjax.study.engines.interface import Event, Job, Resources

pytest.importorskip("ray", reason="the extra `ray` is not installed")
# Ray leaves sockets and files to be closed by the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.extra,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MakeJob = Callable[..., Job]
Tries = Callable[[str], int]
SMALL = Resources(workers=2)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def run(jobs: list[Job], resources: Resources) -> Iterator[Event]:
    from cnnjax.study.engines import find

    return find("ray")(jobs, made_up.work, resources)


def ray_processes() -> set[int]:
    """Return the ids of all Ray daemons and workers that run."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes()
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and (
                b"raylet" in words or b"gcs_server" in words or words.startswith(b"ray::")
            ):
                found.add(int(path.name))
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail where a test leaves a process of Ray behind."""
    before = ray_processes()
    yield
    deadline = time.monotonic() + 20
    while (left := ray_processes() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def wait_until(true: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def kinds(events: list[Event], name: str) -> list[str]:
    """Return how each try of a trial ended; a start may be lost with a worker that dies at once."""
    seen = [event.kind for event in events if event.trial_id == name]
    story = " ".join(seen)
    assert "started started" not in story and not story.endswith("started")
    return [kind for kind in seen if kind != "started"]


def test_an_instance_of_its_own(job: MakeJob, tries: Tries, nothing_left: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    jobs = [job(f"t{i}", "done", threads=1 + i % 2) for i in range(5)]
    jobs += [job("dies", "die", "done"), job("kills", "die"), job("fails", "fail")]
    events = list(run(jobs, SMALL))
    assert signal.getsignal(signal.SIGTERM) is before
    seen = {event.trial_id: event.body for event in events if event.kind == "done"}
    assert set(seen) == {*(f"t{i}" for i in range(5)), "dies"}
    assert [seen[f"t{i}"]["threads"] for i in range(5)] == ["1", "2", "1", "2", "1"]
    assert {body["platforms"] for body in seen.values()} == {"cpu"}
    assert not any(body["jax"] for body in seen.values())
    assert kinds(events, "dies") == ["crashed", "done"]
    assert kinds(events, "kills") == ["crashed", "crashed", "lost"] and tries("kills") == 3
    assert kinds(events, "fails") == ["failed"] and tries("fails") == 1


@pytest.mark.parametrize(("act", "error"), [("full", OSError), ("bug", RuntimeError)])
def test_an_error_stops_at_once(
    job: MakeJob, tries: Tries, nothing_left: None, act: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"No space left|Unsendable: 1 and 2"):
        list(run([job("a", act), job("b", "wait")], SMALL))
    assert tries("a") == 1


def test_fractions_of_a_gpu_are_shared_and_told(job: MakeJob, nothing_left: None) -> None:
    import ray

    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False,
        object_store_memory=80_000_000,
    )  # fmt: skip
    try:
        jobs = [job(name, "done") for name in "abc"]
        events = list(run(jobs, Resources(workers=2, gpus=0.5, cpus=0.5)))
        events = [event for event in events if event.kind == "done"]
        assert {event.body["share"] for event in events} == {"0.450"}
        assert {event.body["platforms"] for event in events} <= {None, os.environ["JAX_PLATFORMS"]}
        with pytest.raises(ValueError, match=r"takes 1 CPUs and 2 GPUs; no Ray node has as many"):
            list(run(jobs, Resources(gpus=2)))
        assert ray.is_initialized()  # one that was there before is left as it was
    finally:
        ray.shutdown()


def test_no_cluster_is_one_line(job: MakeJob) -> None:
    with pytest.raises(ConnectionError, match=r"Ray at 127.0.0.1:1 does not answer.*refused"):
        list(run([job("a", "done")], Resources(address="127.0.0.1:1")))


@pytest.fixture
def cluster(nothing_left: None) -> Iterator[Any]:
    """Three Ray nodes on this host: a head that runs no trial, and two of one CPU."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 80_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        cluster.two = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]  # type: ignore[attr-defined]
        cluster.wait_for_nodes()
        try:
            yield cluster
        finally:
            import ray

            ray.shutdown()
            cluster.shutdown()


def test_a_killed_node_costs_its_trials_one_more_try(
    job: MakeJob, tries: Tries, tmp_path: Path, cluster: Any
) -> None:
    jobs = [job("a", "wait"), job("b", "wait"), job("c", "done"), job("d", "done")]
    events = run(jobs, Resources(address=cluster.address))
    seen: list[Event] = []

    def kill_a_node() -> None:
        wait_until(lambda: tries("a") and tries("b"))
        cluster.remove_node(cluster.two[0], allow_graceful=False)  # SIGKILL of all its processes
        notes = tmp_path / "notes"
        workers = [int((notes / f"{name}.0.began").read_text()) for name in "ab"]
        wait_until(lambda: not all(Path(f"/proc/{pid}").exists() for pid in workers))
        (notes / "go").touch()

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    seen.extend(events)
    killer.join()
    assert sorted(e.trial_id for e in seen if e.kind == "done") == ["a", "b", "c", "d"]
    ends = sorted(e.kind for e in seen if e.kind != "started")
    assert ends == ["crashed", "done", "done", "done", "done"]
    assert sorted((tries("a"), tries("b"))) == [1, 2]

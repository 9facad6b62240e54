"""The Slurm engine: submitit's local executor, and its Slurm executor against made-up commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_slurm
import made_up
import pytest

from cnnjax.study.engines.interface import Event, Job, Resources

pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
# submitit leaves a job's process to the garbage collector, which may come while it still ends.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.extra,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MakeJob = Callable[..., Job]
Tries = Callable[[str], int]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture
def jobs_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a Slurm of made-up commands; return where its jobs are."""
    from submitit.core.core import Job as SubmititJob
    from submitit.slurm.slurm import SlurmJob

    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    fake_slurm.install(commands)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(jobs))
    monkeypatch.setattr(SubmititJob, "_results_timeout_s", 1)
    SlurmJob.watcher.clear()
    yield jobs
    for path in jobs.glob("*.pid"):
        fake_slurm.scancel(jobs, path.stem)


def run(jobs: list[Job], resources: Resources) -> Iterator[Event]:
    from cnnjax.study.engines import find

    return find("slurm")(jobs, made_up.work, resources)


def ends(events: list[Event]) -> list[Event]:
    """Return the events without starts: a job may be too short to be seen running."""
    return [event for event in events if event.kind != "started"]


def kinds(events: list[Event], name: str) -> list[str]:
    return [event.kind for event in ends(events) if event.trial_id == name]


def test_the_local_executor(
    job: MakeJob, tries: Tries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.core.core import Job as SubmititJob

    monkeypatch.setattr(SubmititJob, "_results_timeout_s", 1)
    jobs = [
        job("a", "done"),
        job("b", "done", threads=2),
        job("f", "fail"),
        job("d", "die", "done"),
    ]
    resources = Resources(workers=2, address="local", folder=str(tmp_path / "engine"))
    events = list(run(jobs, resources))
    seen = {event.trial_id: event.body for event in events if event.kind == "done"}
    assert {name: seen[name]["threads"] for name in "abd"} == {"a": "1", "b": "2", "d": "1"}
    assert {seen[name]["platforms"] for name in "abd"} == {"cpu"}
    assert not any(body["jax"] for body in seen.values())
    assert kinds(events, "f") == ["failed"] and tries("f") == 1
    assert kinds(events, "d") == ["crashed", "done"] and tries("d") == 2


def test_an_error_stops_at_once(job: MakeJob, tries: Tries, tmp_path: Path) -> None:
    resources = Resources(workers=2, address="local", folder=str(tmp_path / "engine"))
    with pytest.raises(OSError, match="No space left"):
        list(run([job("a", "full"), job("b", "wait")], resources))
    assert tries("a") == 1


def test_what_slurm_is_asked_for(job: MakeJob, tmp_path: Path, jobs_of: Path) -> None:
    options = {"partition": "gpu", "time": "120", "mem": "16GB"}
    resources = Resources(gpus=2, cpus=4, folder=str(tmp_path / "engine"), options=options)
    (event,) = ends(list(run([job("a", "done", threads=3)], resources)))
    assert event.kind == "done" and event.body["threads"] == "3"
    script = (jobs_of / "1.sh").read_text()
    for flag in ("partition=gpu", "time=120", "mem=16GB", "gpus-per-node=2", "cpus-per-task=4"):
        assert f"#SBATCH --{flag}\n" in script


def test_a_dead_node_costs_one_more_try(
    job: MakeJob, tries: Tries, tmp_path: Path, jobs_of: Path
) -> None:
    events = list(run([job("a", "die", "done")], Resources(folder=str(tmp_path / "engine"))))
    assert kinds(events, "a") == ["crashed", "done"] and tries("a") == 2
    assert "its Slurm job 1 ended as NODE_FAIL" in ends(events)[0].body


DRIVER = """
import sys
import made_up
from cnnjax.study.engines import find
from cnnjax.study.engines.interface import Job, Resources
notes, folder = sys.argv[1:]
jobs = [Job({name: {"notes": notes, "acts": ["wait"]}}) for name in "ab"]
list(find("slurm")(jobs, made_up.work, Resources(folder=folder)))
"""


def test_jobs_outlive_the_driver_and_the_next_takes_them_over(
    job: MakeJob, tries: Tries, tmp_path: Path, jobs_of: Path
) -> None:
    folder = str(tmp_path / "engine")
    words = [sys.executable, "-c", DRIVER, str(tmp_path / "notes"), folder]
    driver = subprocess.Popen(words)
    deadline = time.monotonic() + 60
    while not (tries("a") and tries("b")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    # Only then may they end: of what ends between two drivers the study has the result.
    threading.Timer(2.0, (tmp_path / "notes" / "go").touch).start()
    events = list(run([job(name, "wait") for name in "abc"], Resources(folder=folder)))
    assert sorted((e.trial_id, e.kind) for e in ends(events)) == [(name, "done") for name in "abc"]
    assert [tries(name) for name in "abc"] == [1, 1, 1]
    assert len(list(jobs_of.glob("*.sh"))) == 3


@pytest.mark.parametrize("address", ["local", None])
def test_a_trial_is_said_to_run_while_it_runs(
    job: MakeJob, tmp_path: Path, jobs_of: Path, address: str | None
) -> None:
    """Once, before it ends: this one waits for that."""
    resources = Resources(workers=2, address=address, folder=str(tmp_path / "engine"))
    events = run([job("a,b", "wait")], resources)
    assert [next(events) for _ in "ab"] == [Event("started", name) for name in "ab"]
    (tmp_path / "notes" / "go").touch()
    assert [(event.trial_id, event.kind) for event in events] == [("a", "done"), ("b", "done")]


def test_closing_the_generator_cancels_the_jobs(
    job: MakeJob, tries: Tries, tmp_path: Path, jobs_of: Path
) -> None:
    events = run([job("a", "done"), job("b", "wait")], Resources(folder=str(tmp_path / "engine")))
    assert next(event for event in events if event.kind == "done").trial_id == "a"
    events.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10  # one that was done or killed takes a moment to end
    while left := [p.stem for p in jobs_of.glob("*.pid") if fake_slurm.is_running(jobs_of, p.stem)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"gpus": 0.5}, ValueError, "gpus: Slurm gives whole GPUs, got 0.5"),
        ({"address": "login:22"}, ValueError, "address: expected none"),
        ({"folder": None}, ValueError, "folder: the Slurm engine needs a directory"),
        ({"options": {"partitoin": "gpu"}}, ValueError, "slurm: an option submitit does not know"),
        ({"options": {"partition": "closed"}}, OSError, "Slurm did not take trial a: .*closed"),
    ],
)
def test_mistakes_are_one_line(
    job: MakeJob,
    tmp_path: Path,
    jobs_of: Path,
    wrong: dict[str, object],
    error: type[Exception],
    says: str,
) -> None:
    resources = Resources(**{"folder": str(tmp_path / "engine"), **wrong})  # type: ignore[arg-type]
    with pytest.raises(error, match=says) as caught:
        list(run([job("a", "done")], resources))
    assert "\n" not in str(caught.value)


def test_without_slurm_it_says_so(
    job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # the machine of this test may have one
    with pytest.raises(OSError, match="no Slurm here"):
        list(run([job("a", "done")], Resources(folder=str(tmp_path / "engine"))))

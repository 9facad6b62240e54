"""The local engine with made-up work: order, threads, crashes, errors, nothing left behind."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import made_up
import pytest

from cnnjax.study.engines.interface import Event, Job, Resources
from cnnjax.study.engines.local import MOST_WORKERS_A_CORE, run

MakeJob = Callable[..., Job]
Tries = Callable[[str], int]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(notes: Path) -> set[int]:
    return {int(path.read_text()) for path in notes.glob("*.began")}


def ends(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.trial_id, event.kind) for event in events if event.kind != "epoch"]


def test_every_job_ends_once_and_workers_are_used_again(job: MakeJob, tmp_path: Path) -> None:
    jobs = [job(f"t{i}", "fail" if i == 3 else "done") for i in range(8)]
    events = list(run(jobs, made_up.work, Resources(workers=2)))
    assert sorted(ends(events)) == [(f"t{i}", "failed" if i == 3 else "done") for i in range(8)]
    assert collections.Counter(e.trial_id for e in events if e.kind == "epoch") == {
        f"t{i}": 1 for i in range(8)
    }
    workers = pids(tmp_path / "notes")
    assert len(workers) <= 2 and os.getpid() not in workers
    assert not any(map(is_running, workers))


def test_a_worker_may_have_processes_of_its_own(job: MakeJob) -> None:
    """Such as those that read pictures for it."""
    events = list(run([job("a", "child")], made_up.work, Resources(workers=1)))
    assert ends(events) == [("a", "done")], events[-1].body


def test_a_worker_has_its_own_threads_and_no_jax(job: MakeJob) -> None:
    jobs = [job("a", "done"), job("b", "done", threads=2), job("c", "done")]
    seen = {e.trial_id: e.body for e in run(jobs, made_up.work, Resources(workers=1))}
    assert [seen[name]["threads"] for name in "abc"] == ["1", "2", "1"]
    assert not any(body["jax"] for body in seen.values())
    assert seen["a"]["preallocate"] == os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE")
    two = list(run([job("d", "done")], made_up.work, Resources(workers=2)))
    assert two[-1].body["preallocate"] == "false"


def test_a_killed_worker_costs_one_more_try(job: MakeJob, tries: Tries) -> None:
    jobs = [job("a", "die", "die", "done"), job("b", "done")]
    events = ends(list(run(jobs, made_up.work, Resources(workers=2))))
    assert [kind for name, kind in events if name == "a"] == ["crashed", "crashed", "done"]
    assert ("b", "done") in events
    assert tries("a") == 3


def test_a_trial_that_kills_every_worker_is_lost_and_the_others_go_on(
    job: MakeJob, tries: Tries
) -> None:
    events = list(run([job("a", "die"), job("b", "done")], made_up.work, Resources(workers=1)))
    assert ends(events)[-2:] == [("a", "lost"), ("b", "done")]
    (lost,) = (event for event in events if event.kind == "lost")
    assert lost.body == "its worker process died (exit code -9), at each of 3 tries"
    assert tries("a") == 3 and tries("b") == 1


def test_several_trials_of_one_job_end_each_in_its_own_way(job: MakeJob, tries: Tries) -> None:
    jobs = [job("a,b", "done"), job("c,d", "die", "die", "die", "done")]
    events = list(run(jobs, made_up.work, Resources(workers=1)))
    assert collections.Counter(e.trial_id for e in events if e.kind == "epoch")["b"] == 1
    assert [name for name, kind in ends(events) if kind == "done"] == ["a", "b", "c"]
    # Three tries together, where c dies before d begins; then each has its own.
    assert [kind for name, kind in ends(events) if name == "d"] == ["crashed"] * 5 + ["lost"]
    assert (tries("a"), tries("c"), tries("d")) == (1, 4, 3)


@pytest.mark.parametrize(("act", "error"), [("full", OSError), ("bug", RuntimeError)])
def test_an_error_stops_at_once_and_is_not_tried_again(
    job: MakeJob, tries: Tries, tmp_path: Path, act: str, error: type[Exception]
) -> None:
    jobs = [job("a", act), job("b", "wait"), job("c", "done")]
    with pytest.raises(error, match=r"No space left|Unsendable: 1 and 2"):
        list(run(jobs, made_up.work, Resources(workers=2)))
    assert tries("a") == 1 and tries("c") == 0
    assert not any(map(is_running, pids(tmp_path / "notes")))


def test_closing_the_generator_stops_the_workers(job: MakeJob, tmp_path: Path) -> None:
    events = run([job(n, "wait") for n in "ab"], made_up.work, Resources(workers=2))
    assert {next(events).kind, next(events).kind} == {"epoch"}
    workers = pids(tmp_path / "notes")
    assert all(map(is_running, workers)) and len(workers) == 2
    events.close()  # type: ignore[attr-defined]
    assert not any(map(is_running, workers))


def test_a_worker_ignores_the_terminals_ctrl_c(job: MakeJob, tmp_path: Path) -> None:
    events = run([job("a", "wait")], made_up.work, Resources(workers=1))
    next(events)
    (pid,) = pids(tmp_path / "notes")
    os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    (tmp_path / "notes" / "go").touch()
    assert [event.kind for event in events] == ["done"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpus": 1.0},
        {"cpus": 0.5},
        {"address": "auto"},
        {"options": {"partition": "gpu"}},
        {"workers": MOST_WORKERS_A_CORE * (os.cpu_count() or 1) + 1},
    ],
)
def test_what_it_cannot_do_it_refuses(job: MakeJob, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^(engine|workers): "):
        list(run([job("a", "done")], made_up.work, Resources(**wrong)))  # type: ignore[arg-type]

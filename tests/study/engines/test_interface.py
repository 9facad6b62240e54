"""The policy of all engines: crashes are tried again, mistakes are not; JAX stays with workers."""

from __future__ import annotations

import collections
import importlib.util
import json
import pickle
import subprocess
import sys

import pytest

from cnnjax.study import engines
from cnnjax.study.engines.interface import (
    MAX_CRASHES,
    MAX_LOST_IN_A_ROW,
    Event,
    Job,
    Queue,
    attempt,
    environment,
)

A, B = Job({"a": {}}), Job({"b": {}})


def test_a_crash_is_tried_again_first_and_then_lost() -> None:
    queue = Queue(collections.deque([B]))
    for _ in range(MAX_CRASHES):
        assert queue.crashed(A, "killed") == [Event("crashed", "a", "killed")]
        assert queue.waiting.popleft() is A  # before the others: its checkpoint is warm
    (lost,) = queue.crashed(A, "killed")
    assert lost.kind == "lost" and "at each of 3 tries" in lost.body
    assert list(queue.waiting) == [B]


def test_several_trials_that_crash_are_tried_together_then_each_alone() -> None:
    queue, both = Queue(collections.deque([B])), Job({"x": {"seed": 0}, "y": {"seed": 1}}, 3)
    for _ in range(MAX_CRASHES):
        assert [event.trial_id for event in queue.crashed(both, "killed")] == ["x", "y"]
        assert queue.waiting.popleft() is both
    assert [event.kind for event in queue.crashed(both, "killed")] == ["crashed", "crashed"]
    x, y = Job({"x": {"seed": 0}}, 3), Job({"y": {"seed": 1}}, 3)
    assert list(queue.waiting) == [x, y, B]
    queue.waiting.popleft()
    for kind in ["crashed"] * MAX_CRASHES + ["lost"]:  # with tries of its own
        assert queue.crashed(x, "killed")[0].kind == kind
    assert list(queue.waiting).count(y) == 1


def test_workers_that_die_whatever_the_trial_end_the_study() -> None:
    queue = Queue(collections.deque())

    def lose(name: str) -> Event:
        job = Job({name: {}})
        return [queue.crashed(job, "no library") for _ in range(MAX_CRASHES + 1)][-1][0]

    for i in range(MAX_LOST_IN_A_ROW - 1):
        assert lose(f"t{i}").kind == "lost"
    queue.ended([Event("done", "x", {})])  # one that ends well: it is the trials' doing after all
    for i in range(MAX_LOST_IN_A_ROW - 1):
        assert lose(f"u{i}").kind == "lost"
    with pytest.raises(ChildProcessError, match=r"whatever the trial.*no library"):
        lose("last")


def test_an_error_is_raised_not_tried_again() -> None:
    queue = Queue(collections.deque())
    with pytest.raises(OSError, match="full"):
        queue.ended([Event("error", "a", OSError("disk full"))])
    assert not queue.waiting


def test_an_exception_becomes_an_event_that_can_be_sent() -> None:
    class Local(Exception):
        pass

    def bug(job: Job, report: object) -> list[Event]:
        raise Local("what it says")

    (event,) = pickle.loads(pickle.dumps(attempt(bug, A, print)))
    assert event.kind == "error" and str(event.body) == "Local: what it says"

    def full(job: Job, report: object) -> list[Event]:
        raise OSError(28, "No space left on device")

    (event,) = pickle.loads(pickle.dumps(attempt(full, A, print)))
    assert isinstance(event.body, OSError) and event.body.errno == 28


def test_a_worker_is_told_its_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNJAX_DATA", "there")
    told = environment(Job({"a": {}}, 3), 0)
    assert (told["NPROC"], told["JAX_PLATFORMS"], told["CNNJAX_DATA"]) == ("3", "cpu", "there")
    assert "HOME" not in told
    # A node's own settings would change the last bits: the driver's hold, also where it has none.
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    told = environment(A, 0)
    assert (told["JAX_NUM_CPU_DEVICES"], told["XLA_FLAGS"]) == ("4", "")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    assert environment(A, 0)["JAX_NUM_CPU_DEVICES"] == "-1"
    assert environment(A, 0.25)["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.225"
    for gpus in (0.25, 1, 2):
        assert "JAX_PLATFORMS" not in environment(A, gpus)
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in environment(A, 1)


@pytest.mark.parametrize("name", sorted(engines.ENGINES))
def test_an_engine_is_found_or_says_what_it_needs(name: str) -> None:
    package = engines.ENGINES[name].package
    if package is None or importlib.util.find_spec(package):
        assert callable(engines.find(name))
    else:
        with pytest.raises(ValueError, match=f"needs the package {package}.*cnnjax.{name}"):
            engines.find(name)


def test_an_unknown_engine_lists_the_known() -> None:
    with pytest.raises(ValueError, match="engine: unknown name 'rey'; did you mean ray"):
        engines.find("rey")


def test_engines_and_workers_import_no_jax_before_there_is_work() -> None:
    program = """
import json, sys
import cnnjax.study.work
from cnnjax.study.engines import ENGINES
for card in ENGINES.values():
    __import__(card.module)
print(json.dumps(sorted({"jax", "jaxlib", "flax", "ray", "submitit"} & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []

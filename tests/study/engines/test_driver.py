"""The driver has no JAX and outlives its planner; events, errors and signals go the right way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).with_name("planned.py"))


def start(tmp_path: Path, plan: str, acts: str = "done") -> subprocess.Popen[str]:
    """Start a driver and its planner, which runs one job of these acts."""
    notes = tmp_path / "notes"
    notes.mkdir()
    return subprocess.Popen(
        [sys.executable, PROGRAM, plan, str(notes), acts],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines(), err


def pid(tmp_path: Path, name: str) -> int:
    """Return the process id that a planner or worker has noted."""
    path = tmp_path / "notes" / name
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return int(path.read_text())


def gone(*processes: int) -> bool:
    deadline = time.monotonic() + 5
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_running, processes))


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


NO_JAX = "jax in the driver: False"


def test_the_planner_hears_the_engine_and_says_the_status(tmp_path: Path) -> None:
    status, lines, errors = finish(start(tmp_path, "listen"))
    assert (status, lines) == (3, ["a epoch", "a done", NO_JAX]), errors
    assert not errors


def test_an_engines_error_is_raised_in_the_planner(tmp_path: Path) -> None:
    status, lines, errors = finish(start(tmp_path, "listen", "full"))
    assert (status, lines) == (3, ["a epoch", "raised 28", NO_JAX]), errors


def test_a_planner_that_leaves_stops_the_engine(tmp_path: Path) -> None:
    status, lines, errors = finish(start(tmp_path, "leave", "wait"))
    assert (status, lines) == (3, ["a epoch", NO_JAX]), errors
    assert gone(pid(tmp_path, "a.0.began"))


def test_a_killed_planner_is_started_again(tmp_path: Path) -> None:
    status, lines, errors = finish(start(tmp_path, "die once", "wait,done"))
    assert (status, lines) == (3, ["a epoch", "a epoch", "a done", NO_JAX]), errors
    assert "the planning process died (exit code -9); it is started again" in errors
    assert gone(pid(tmp_path, "a.0.began"))


def test_a_planner_that_always_dies_is_given_up(tmp_path: Path) -> None:
    status, lines, _ = finish(start(tmp_path, "die", "wait"))
    assert status == 4
    assert lines[-2:] == [
        "the planning process died (exit code -9), at each of 3 tries",
        NO_JAX,
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("told", ["driver", "both"])
def test_an_interrupt_ends_workers_and_planner(
    tmp_path: Path, number: signal.Signals, told: str
) -> None:
    process = start(tmp_path, "listen", "wait")
    worker, planner = pid(tmp_path, "a.0.began"), pid(tmp_path, "planner.0")
    assert process.stdout is not None and process.stdout.readline() == "a epoch\n"
    time.sleep(0.2)  # all three wait
    if told == "both":  # as a terminal does it
        os.kill(planner, number)
    process.send_signal(number)
    status, lines, errors = finish(process)
    assert (status, lines, errors) == (130, ["interrupted", NO_JAX], "")
    assert gone(worker, planner)


@pytest.mark.parametrize("acts", ["wait", "done"], ids=["interrupted", "done"])
def test_a_signal_to_a_planner_that_is_ending_prints_nothing(tmp_path: Path, acts: str) -> None:
    process = start(tmp_path, "linger", acts)
    planner, out = pid(tmp_path, "planner.0"), process.stdout
    assert out is not None and out.readline() == "a epoch\n"
    if acts == "wait":
        os.kill(planner, signal.SIGTERM)
    assert out.readline() in ("interrupted\n", "a done\n")
    time.sleep(0.5)  # now it waits for its thread
    process.send_signal(signal.SIGTERM)
    status, lines, errors = finish(process)
    assert (status, lines, errors) == (130 if acts == "wait" else 3, [NO_JAX], "")


@pytest.mark.parametrize("plan", ["listen", "work"])
def test_workers_and_planner_end_with_a_killed_driver(tmp_path: Path, plan: str) -> None:
    process = start(tmp_path, plan, "wait")
    worker, planner = pid(tmp_path, "a.0.began"), pid(tmp_path, "planner.0")
    assert process.stdout is not None and process.stdout.readline() == "a epoch\n"
    process.kill()
    process.wait()  # not for the end of its output, which is theirs as well
    assert gone(worker, planner)
    process.communicate()

"""Asked to stop, between two steps or while the trained network is measured, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from process_table import children

from cnnjax.config import Config
from cnnjax.study import trial
from cnnjax.study.store import TrialFiles
from cnnjax.train import processes, saver
from cnnjax.train.progress import Progress
from cnnjax.train.saver import BrokenOff, Saver, Stopped, breaking_off

CONFIG = Config(
    dataset="digits_canvas:side=18:scale=1:train=44:test=20",
    epochs=2,
    batch_size=8,
    widths=(2,),
    dense=(4,),
    head="gap",
    eval_places=2,
    battery="none",
)
STEPS = 12


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saver, "LOOK_SECONDS", 0.01)


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def ctrl_c(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield the handler of Ctrl-C; a shell has it ignored by what it starts with an ampersand."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


def work() -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.01)
    return "done"


def test_work_is_broken_off_once_asked(ctrl_c: Any) -> None:
    looks = iter([False, False, True])
    with pytest.raises(BrokenOff), breaking_off(lambda: next(looks)):
        work()
    assert next(looks, None) is None
    assert signal.getsignal(signal.SIGINT) is ctrl_c


class Deaf:
    """What is raised inside its end is lost, as inside every callback from C."""

    def __del__(self) -> None:
        time.sleep(0.2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_got_lost_comes_again() -> None:
    with pytest.raises(BrokenOff), breaking_off(lambda: True):
        deaf = Deaf()
        del deaf
        work()


def test_ctrl_c_itself_is_what_it_was(ctrl_c: Any) -> None:
    came = None
    try:
        with breaking_off(lambda: False):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)
    except KeyboardInterrupt:
        came = signal.default_int_handler
    assert came is (ctrl_c if ctrl_c is not signal.SIG_IGN else None)
    assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_another_thread_is_left_alone() -> None:
    found = []

    def run() -> None:
        with breaking_off(lambda: True):
            time.sleep(0.05)
            found.append("done")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == ["done"]


@pytest.mark.parametrize("first", [7, 9])
def test_several_processes_agree_whatever_each_has_counted(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    """The step agreed on is one that every process still comes to, at its next looks."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "asked_to_stop", lambda step: step == first)
    ended = Saver()
    ended.between(None, Progress(step=6))
    ended.ended(None, Progress(step=6))
    message = "after step 6, nothing is kept without --out"
    with pytest.raises(Stopped, match=message), ended.until_asked():
        work()


def test_a_network_asked_to_stop_while_measured_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(STEPS))
    with monkeypatch.context() as patch:
        patch.setattr(trial, "judge", lambda *_: work())
        with pytest.raises(Stopped, match=f"after step {STEPS}, saved in .*checkpoints"):
            trial.run_in(TrialFiles(tmp_path), CONFIG, stop=lambda: next(looks, None) is None)
    assert (tmp_path / "checkpoints" / str(STEPS)).is_dir()
    lines = TrialFiles(tmp_path).metrics()
    result = trial.run_in(TrialFiles(tmp_path), CONFIG)
    assert result["variables_sha256"] == trial.run(CONFIG)["variables_sha256"]
    # Told again with the seconds of the first try: no epoch was trained in the second.
    assert TrialFiles(tmp_path).metrics() == lines


def test_the_seconds_of_earlier_tries_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = Progress(lines=[{"seconds": 2.0}, {"seconds": 3.0}], seconds=0.5)
    assert earlier.seconds_trained() == 5.5
    earlier.begin()
    earlier.batch = 1
    earlier.close()
    time.sleep(0.1)  # of no epoch
    assert Progress.restored(earlier.saved()).seconds_trained() < 5.6
    monkeypatch.setattr(Progress, "seconds_trained", lambda self: 1000.0)
    assert trial.run_in(TrialFiles(tmp_path), CONFIG)["seconds_training"] > 1000.0


def test_nothing_is_written_where_nobody_asks(tmp_path: Path) -> None:
    trial.run_in(TrialFiles(tmp_path), CONFIG, stop=lambda: False)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "told"), [(["train"], None), (["launch", "--nproc=2", "--", "train"], 1)]
)
def test_sigterm_while_a_network_is_measured(
    tmp_path: Path, words: list[str], told: int | None
) -> None:
    """To the command, and to one of the processes that it started."""
    flags = ["--epochs=1", "--battery=full", f"--out={tmp_path}"]  # minutes to measure
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnjax", *words, *flags],
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("epoch   1/1")
    time.sleep(1.0)
    os.kill(process.pid if told is None else children(process.pid)[told], signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75, errors
    assert "the same command goes on from there" in errors.splitlines()[-1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["23"]

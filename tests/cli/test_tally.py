"""The live view: counts, time left, the best arm; as drawn on a terminal and as lines elsewhere."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cnnjax.cli.progress import showing
from cnnjax.cli.tally import Best, Tally
from cnnjax.config import Config, trial_id
from cnnjax.study.engines.interface import Event
from cnnjax.study.grid import Contrast, Study
from cnnjax.study.run import Plan, plan
from cnnjax.study.store import Store

STUDY = Study(
    name="small",
    question="?",
    base=Config(head="gap", padding="CIRCULAR", epochs=4, stride=2),
    axes={"pool": ("max", "mean"), "seed": (0, 1)},
    contrast=Contrast("consistency", {"pool": "max"}, {"pool": "mean"}),
)
IDS = [trial.id for trial in STUDY.trials()]  # max 0, max 1, mean 0, mean 1
NOW = [0.0]


def done(value: float, **metrics: float) -> dict[str, Any]:
    figures = {"accuracy": 0.5, "accuracy_away": 0.25, "consistency": value, **metrics}
    return {"status": "done", "metrics": figures, "seconds": 3.0}


def todo(root: Path, study: Study = STUDY) -> Plan:
    return plan(study.trials(), Store(root))


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give back the signals that an interrupted study keeps."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    NOW[0] = 100.0
    return Tally(STUDY, todo(tmp_path), clock=lambda: NOW[0])


def test_counts_follow_the_events(tally: Tally) -> None:
    assert tally.text() == "0/4 trials, 0 running, 0 failed, time left unknown"
    tally.take(Event("started", IDS[0]))
    tally.take(Event("started", IDS[1]))
    assert tally.counts() == "0/4 trials, 2 running, 0 failed"
    tally.take(Event("done", IDS[0], done(0.9)))
    tally.take(Event("crashed", IDS[1], "killed"))
    assert tally.counts() == "1/4 trials, 0 running, 0 failed"
    tally.take(Event("epoch", IDS[1], {"epoch": 1}))  # an engine that tells no starts
    assert tally.counts() == "1/4 trials, 1 running, 0 failed"
    tally.take(Event("failed", IDS[1], {"status": "failed", "reason": "diverged"}))
    assert tally.counts() == "2/4 trials, 0 running, 1 failed"


def test_time_left_is_that_of_the_work_left(tally: Tally) -> None:
    tally.take(Event("epoch", IDS[0], {"epoch": 2}))  # half of one of four: an eighth
    NOW[0] += 10
    assert tally.seconds_left() == pytest.approx(70)
    tally.take(Event("crashed", IDS[0], "killed"))
    assert tally.seconds_left() is None
    tally.take(Event("done", IDS[0], done(0.9)))
    assert tally.seconds_left() == pytest.approx(30) and tally.left() == "30 s left"
    NOW[0] += 3600
    assert tally.left() == "3 h 1 min left"
    for name in IDS[1:]:
        tally.take(Event("done", name, done(0.9)))
    assert tally.left() == "0 s left"


def test_best_is_the_mean_of_an_arm_with_its_n(tally: Tally) -> None:
    assert tally.best() is None and tally.leader() == ""
    for name, value in zip(IDS, (0.9, 0.5, 0.8, float("nan")), strict=True):
        tally.take(Event("done", name, done(value)))
    assert tally.best() == Best("pool=mean", 0.8, 1)
    assert tally.leader() == "best consistency so far 0.800: pool=mean (n = 1)"


def test_of_equal_arms_the_one_with_most_seeds(tally: Tally) -> None:
    for name in IDS[1:]:
        tally.take(Event("done", name, done(1.0)))
    assert tally.best() == Best("pool=mean", 1.0, 2)


def test_a_loss_is_best_when_least_and_accuracy_is_the_default(tmp_path: Path) -> None:
    contrast = Contrast("test_loss", {"pool": "max"}, {"pool": "mean"})
    for study, arm in ((replace(STUDY, contrast=contrast), "max"), (None, "mean")):
        study = study or replace(STUDY, contrast=None)
        tally = Tally(study, todo(tmp_path, study))
        tally.take(Event("done", IDS[0], done(1.0, test_loss=0.2, accuracy=0.1)))
        tally.take(Event("done", IDS[2], done(1.0, test_loss=0.3, accuracy=0.7)))
        assert tally.best()[0] == f"pool={arm}"  # type: ignore[index]


def test_what_was_finished_before_counts(tmp_path: Path) -> None:
    Store(tmp_path).trial(IDS[0]).finish(
        {"config": {"pool": "max", "head": "gap", "padding": "CIRCULAR", "epochs": 4, "stride": 2}}
        | done(0.7)
    )
    tally = Tally(STUDY, todo(tmp_path))
    assert tally.counts() == "1/4 trials, 0 running, 0 failed"
    assert tally.best() == Best("pool=max", 0.7, 1) and tally.seconds_left() is None


def watch(root: Path, console: Console) -> None:
    with showing(STUDY, "out", console) as progress:
        progress.plan(todo(root))
        for name, value in zip(IDS[:2], (0.9, 0.7), strict=True):
            progress.event(Event("started", name))
            progress.event(Event("epoch", name, {"epoch": 1}))
            progress.event(Event("done", name, done(value)))
        progress.event(Event("crashed", IDS[2], "its worker died"))
        progress.event(Event("failed", IDS[2], {"status": "failed", "reason": "diverged"}))


def test_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    text = io.StringIO()
    watch(tmp_path, Console(file=text, width=80))
    lines = text.getvalue().splitlines()
    assert len(lines) == 4  # one an end, none an epoch, however long
    assert lines[0].startswith("done    pool=max seed=0  accuracy=0.500")
    assert re.search(
        r"\[1/4 trials, 0 running, 0 failed, .* left; best consistency so far", lines[0]
    )
    assert "best consistency so far 0.800: pool=max (n = 2)]" in lines[1]
    assert lines[2].startswith("crashed pool=mean seed=0  its worker died")
    assert lines[3].startswith("failed  pool=mean seed=0  diverged  [3/4 trials, 0 running, 1 fail")


def test_a_terminal_shows_a_bar_and_the_best_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(record=True, force_terminal=True, width=120, file=io.StringIO())
    watch(tmp_path, console)
    shown = console.export_text()
    last = shown[shown.rindex("3/4 trials") :]  # the view as it stood at the end
    assert last.startswith("3/4 trials, 0 running, 1 failed")
    assert " left" in last.splitlines()[0]
    assert last.splitlines()[1] == "best consistency so far 0.800: pool=max (n = 2)"
    assert "failed  pool=mean seed=0  diverged\n" in shown
    assert "[3/4" not in shown  # the counts stand in the view, not in every line


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt, match="1 of 4 trials are done and kept in out"),
        showing(STUDY, "out", Console(file=io.StringIO())) as progress,
    ):
        progress.plan(todo(tmp_path))
        progress.event(Event("done", trial_id(STUDY.trials()[0].config), done(0.9)))
        raise KeyboardInterrupt

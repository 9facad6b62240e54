"""Callbacks: told in order of start, epochs and end, also where a run fails, stops or goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnjax.cli.train import Show
from cnnjax.config import Config, to_dict, trial_id
from cnnjax.study.store import TrialFiles
from cnnjax.study.trial import run_in
from cnnjax.train.saver import Stopped
from cnnjax.train.watch import Callback, OnEpoch, Several

CONFIG = Config(
    dataset="digits_canvas:side=18:scale=1:train=40:test=20",
    epochs=2,
    batch_size=20,
    widths=(2,),
    dense=(),
    head="gap",
    eval_places=2,
    battery="none",
)


class Book(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def start(self, run: Mapping[str, Any]) -> None:
        self.told.append(("start", run))

    def epoch(self, line: Mapping[str, Any]) -> None:
        self.told.append(("epoch", line))

    def end(self, result: Mapping[str, Any]) -> None:
        self.told.append(("end", result))

    def story(self) -> list[Any]:
        return [about.get("epoch", about.get("status", kind)) for kind, about in self.told]


def test_a_run_is_told_from_start_to_end(tmp_path: Path) -> None:
    book, lines = Book(), list[Any]()
    result = run_in(TrialFiles(tmp_path), CONFIG, Several([book, OnEpoch(lines.append)]))
    assert book.story() == ["start", 1, 2, "done"]
    assert book.told[0][1]["id"] == trial_id(CONFIG)
    assert book.told[0][1]["config"] == to_dict(CONFIG)
    assert book.told[-1][1] == result
    assert lines == TrialFiles(tmp_path).metrics() == [line for _, line in book.told[1:3]]


@pytest.mark.slow
def test_a_stopped_run_is_told_again_from_its_start(tmp_path: Path) -> None:
    config, asked = replace(CONFIG, epochs=3), iter([False] * 3)
    book = Book()
    with pytest.raises(Stopped):
        run_in(TrialFiles(tmp_path), config, book, stop=lambda: next(asked, True))
    run_in(TrialFiles(tmp_path), config, book)
    assert book.story() == ["start", 1, "stopped", "start", 1, 2, 3, "done"]


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    book = Book()
    config = replace(CONFIG, lr=1e38, optimizer="sgd", warmup=0.0)
    run_in(TrialFiles(tmp_path), config, book)
    assert book.story()[-1] == "failed"
    assert "diverged" in book.told[-1][1]["reason"]


def test_the_printed_line_has_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show(replace(CONFIG, epochs=4))
    line = {"epoch": 1, "step": 2, "loss": 0.5, "accuracy": 0.25, "images": 3000, "seconds": 2.0}
    show.epoch(line)
    expected = "epoch   1/4  loss 0.5000  accuracy 0.2500  1,500 images/s  6 s left\n"
    assert capsys.readouterr().err == expected

"""--watch: the page follows the study, disturbs nothing, and stops loading itself at the end."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from report_checks import check
from report_studies import STUDY, fail_max_3, made_up, write_study

from cnnjax.cli import main
from cnnjax.config import trial_id
from cnnjax.study import report
from cnnjax.study.store import Store


def reloads(path: Path) -> bool:
    text = path.read_text()
    check(text)
    return "<body data-reload" in text


@pytest.fixture
def half(tmp_path: Path) -> Store:
    """A study whose seed 2 is still to run; one result of it is half written."""
    store = write_study(tmp_path / "half", change=lambda c, r: r if c.seed < 2 else None)
    torn = next(t.runs for t in STUDY.trials() if t.config.seed == 2)
    (store.trial(trial_id(torn)).root / "result.json").write_text('{"id": ')
    return store


@pytest.mark.slow
def test_the_page_follows_the_study_to_its_end(
    half: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = half.root / "report.html"
    left = [t.runs for t in STUDY.trials() if t.config.seed == 2]
    seen = []

    def sleep(seconds: float) -> None:
        seen.append(reloads(page))
        config = left.pop()
        half.trial(trial_id(config)).finish(made_up(config))
        os.utime(half.root / "trials" / trial_id(config) / "result.json")

    monkeypatch.setattr(time, "sleep", sleep)
    with half.lock():  # as the running study has it
        assert main(["report", str(half.root), "--watch"]) == 0
    assert seen == [True] * 6
    assert not reloads(page)
    assert "banner" not in re.sub(r"<style>.*</style>", "", page.read_text(), flags=re.DOTALL)
    assert "18 of 18 trials" in capsys.readouterr().out
    kept = {path.name for path in half.root.iterdir()} - {".lock"}
    assert kept == {"study.json", "trials", "report.html", "cards.json"}


def test_ctrl_c_leaves_a_page_that_stays(
    half: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        assert reloads(half.root / "report.html")
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert main(["report", str(half.root), "--watch"]) == 130
    assert not reloads(half.root / "report.html")
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "interrupted" in errors


def test_ctrl_c_asks_for_no_more_proofs(half: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        assert not evidence.hurry.is_set()
        raise KeyboardInterrupt

    evidence = report.read_all([half], ["half"])
    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report.watch(lambda: evidence, half.root / "report.html")
    assert evidence.hurry.is_set()


@pytest.mark.slow
def test_a_complete_study_ends_at_once_with_its_status(tmp_path: Path) -> None:
    store = write_study(tmp_path / "s", change=fail_max_3)
    assert main(["report", str(store.root), "--watch", f"--out={tmp_path / 'p.html'}"]) == 1
    assert not reloads(tmp_path / "p.html")


@pytest.mark.slow
def test_several_directories_need_a_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(write_study(tmp_path / name).root) for name in ("a", "b")]
    assert main(["report", *names]) == 2
    assert "expected --out=FILE" in capsys.readouterr().err
    out = tmp_path / "both" / "page.html"
    assert main(["report", *names, f"--out={out}"]) == 0
    check(out.read_text())
    assert list((out.parent / "page_figures").glob("*.pdf"))
    assert not (tmp_path / "a" / "report.html").exists()


@pytest.mark.parametrize("words", [[], ["nowhere"], ["nowhere", "--watch"], ["--out="]])
def test_mistakes_are_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_study_without_a_result_is_a_page(tmp_path: Path) -> None:
    store = write_study(tmp_path / "s", change=lambda config, result: None)
    assert main(["report", str(store.root)]) == 0
    assert "0 of 18 trials finished" in check((store.root / "report.html").read_text()).words()


@pytest.mark.long
@pytest.mark.slow
def test_what_comes_while_reading_is_not_missed(
    half: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [t.runs for t in STUDY.trials() if t.config.seed == 2]

    def read() -> report.Evidence:
        evidence = report.read_all([half], ["half"])
        if left:
            config = left.pop()
            half.trial(trial_id(config)).finish(made_up(config))
        return evidence

    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("a result was missed"))
    assert len(report.watch(read, half.root / "report.html").results) == 18

"""`cnnjax study` before it runs anything: what would run, what it costs, which widths match."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnjax.cli import main

GRID = [
    *("study", "--pool=max,lps", "--stride=3", "--seed=0,1", "--widths=4x8", "--dense="),
    *("--head=gap", "--padding=CIRCULAR", "--window=3", "--epochs=2", "--dry_run"),
    "--dataset=digits_canvas:side=18:scale=1:train=40:test=20",
]


def test_dry_run_lists_trials_compilations_and_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GRID, f"--out={tmp_path / 'none'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "4 of 4 trials to run, 2 distinct compilations, about" in lines[-1]
    assert "cost model" in lines[-1]
    assert not (tmp_path / "none").exists()


def test_only_and_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*GRID, f"--out={tmp_path / 'none'}"]
    assert main([*words, "--only=pool=lps", "--max_trials=1"]) == 0
    out = capsys.readouterr().out
    assert "pool=lps" in out and "pool=max" not in out
    assert "1 of 4 trials to run" in out
    assert main([*words, "--only=pool=min"]) == 2
    assert "only: no trial of this grid matches 'pool=min'" in capsys.readouterr().err


@pytest.mark.slow
def test_match_changes_widths_and_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*GRID, f"--out={tmp_path / 'none'}"]
    assert main(words) == 0
    plain = capsys.readouterr().out.splitlines()
    assert main([*words, "--match=params", "--match_to=pool=max"]) == 0
    same = capsys.readouterr().out.splitlines()
    ids = [{line.split()[0] for line in lines if "pool=max" in line} for lines in (plain, same)]
    assert ids[0] == ids[1]  # the reference is what it was
    others = [{line.split()[0] for line in lines if "pool=lps" in line} for lines in (plain, same)]
    assert not others[0] & others[1]
    assert main([*words, "--match=time"]) == 2
    assert "match: unknown name 'time'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("--match_to=pool=max", "match_to: expected --match as well, got 'pool=max' alone"),
        ("--engine=rey", "engine: unknown name 'rey'; did you mean ray"),
        ("--seeds_strategy=vmaped", "seeds_strategy: unknown name 'vmaped'"),
    ],
)
def test_a_dry_run_overlooks_no_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, text: str
) -> None:
    assert main([*GRID, f"--out={tmp_path / 'none'}", word]) == 2
    errors = capsys.readouterr().err
    assert text in errors and errors.count("\n") == 1

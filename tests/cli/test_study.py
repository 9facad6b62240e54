"""`cnnjax study` before it runs anything: what would run, what it costs, which widths match."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnjax.cli import main
from cnnjax.study.store import Store

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


def test_a_dry_run_refuses_the_directories_that_a_run_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    assert main([*GRID, f"--out={tmp_path}"]) == 2
    assert "is not empty and holds no study" in capsys.readouterr().err
    Store(tmp_path / "other").claim({"name": "grid", "fixed": {"lr": 9.0}})
    assert main([*GRID, f"--out={tmp_path / 'other'}"]) == 2
    assert "belongs to another study" in capsys.readouterr().err
    assert main([*GRID, f"--out={tmp_path / 'thesis.tex'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


HEAD = "from cnnjax.config import Config\nfrom cnnjax.study.grid import Condition, Study\n"
ONE = HEAD + 'STUDY = Study(name="s", question="?", base=Config(dataset="digits", pool="max"), '


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\nx = divides", "line 2: NameError: name 'divides' is not defined"),
        ("STUDY = (", "SyntaxError: '(' was never closed"),
        ("\n\nraise SystemExit(3)", "line 3: SystemExit: 3"),
        (HEAD + "STUDY = Study(name=3)", "line 3: TypeError: Study.__init__() missing"),
        (HEAD + "\nConfig(stride=-1)", "line 4: ValueError: stride: "),
        (
            ONE + 'axes={"stride": (2,)}, conditions=(Condition("odd", lambda c: c.odd),))',
            "condition 'odd': AttributeError: 'Config' object has no attribute 'odd'",
        ),
        (
            ONE + 'axes={"stride": (2,)}, conditions=(Condition("none", lambda c: False),))',
            "conditions: expected cells that pass all of ['none'], none does",
        ),
    ],
)
def test_a_study_file_that_fails_is_one_line_that_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text + "\n")
    assert main(["study", str(path), "--dry_run", f"--out={tmp_path / 'none'}"]) == 2
    errors = capsys.readouterr().err
    assert says in errors and errors.count("\n") == 1


def test_the_study_file_of_the_documentation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "study_files.md").read_text()
    path = tmp_path / "mine.py"
    path.write_text("from __future__ import annotations\n" + DATACLASS + code_of(page))
    assert main(["study", str(path), "--dry_run", f"--out={tmp_path / 'none'}"]) == 0
    assert "25 of 25 trials to run, 5 distinct compilations" in capsys.readouterr().out


# Looks its module up by name, as a study file may well do.
DATACLASS = "import dataclasses\n\n@dataclasses.dataclass\nclass Own:\n    x: int = 3\n\n"


def code_of(page: str) -> str:
    return page.partition("```python\n")[2].partition("```")[0]

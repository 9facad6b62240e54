"""Where nobody reads on, as with `| head -1`, a verb ends quietly with status 141."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cnnjax.cli import UNREAD, main

SMALL = ["--dataset=digits:train=40:test=20", "--widths=2", "--dense=", "--epochs=1"]
PRINTING = {
    "help": ["study", "--help"],
    "overview": [],
    "cite": ["cite", "aps"],
    "data": ["data", "list"],
    "dry run": ["study", *SMALL, "--dry_run", "--seed=0,1"],
    "cost": ["train", *SMALL, "--cost"],
}


def unread(words: Sequence[str], *, errors_too: bool = False) -> tuple[int, str]:
    """Run a verb whose reader has gone before it says anything; return status and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.run(
            [sys.executable, "-m", "cnnjax", *words],
            stdout=writer,
            stderr=writer if errors_too else subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writer)
    return process.returncode, process.stderr or ""


@pytest.mark.parametrize("name", ["cite"])
def test_quietly(name: str) -> None:
    assert unread(PRINTING[name]) == (UNREAD, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTING)
def test_every_verb_that_prints(name: str) -> None:
    assert unread(PRINTING[name]) == (UNREAD, "")


@pytest.mark.slow
def test_verbs_on_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", *SMALL, "--battery=none", f"--out={run}"]) == 0
    assert unread(["train", *SMALL, "--battery=none", f"--out={run}"]) == (UNREAD, "")
    assert unread(["certify", str(run)]) == (UNREAD, "")
    assert unread(["export", str(run), "--format=numpy", f"--out={tmp_path / 'a.npz'}"]) == (
        UNREAD,
        "",
    )


@pytest.mark.slow
def test_progress_that_nobody_reads(tmp_path: Path) -> None:
    """Lines on stderr break as well; a mistake is still status 2."""
    assert unread(["train", *SMALL, f"--out={tmp_path / 'a'}"], errors_too=True)[0] == UNREAD
    assert unread(["train", "--pool=maxx"], errors_too=True)[0] == UNREAD
    assert unread(["train", "--pool=maxx"])[0] == 2


@pytest.mark.slow
def test_a_launcher_whose_output_nobody_reads_ends(tmp_path: Path) -> None:
    words = ["launch", "--nproc=1", "--", "train", *SMALL, "--battery=none"]
    status, _ = unread([*words, f"--out={tmp_path / 'a'}"], errors_too=True)
    assert status in (0, UNREAD)
    assert (tmp_path / "a" / "result.json").exists()

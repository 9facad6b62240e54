"""`cnnjax certify` on runs that are finished, and on what is no run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cnnjax.cli import main
from cnnjax.config import Config
from cnnjax.study.trial import run

CONFIG = Config(
    dataset="digits:train=60:test=20",
    pool="aps",
    stride=2,
    widths=(3,),
    dense=(),
    head="gap",
    padding="CIRCULAR",
    epochs=1,
    batch_size=20,
    eval_places=3,
    shift_images=10,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "exact for all circular shifts"),
        ({"head": "flatten", "battery": "none"}, "none: flatten head"),
    ],
)
def test_a_finished_run_is_certified(change, verdict, tmp_path: Path, capsys) -> None:
    row = run(dataclasses.replace(CONFIG, **change), tmp_path / "run")
    out = tmp_path / "certificates.json"
    assert main(["certify", str(tmp_path / "run"), f"--json={out}"]) == 0
    text = capsys.readouterr().out
    assert f"Verdict: {verdict}." in text and text.count("\n") == 1
    (found,) = json.loads(out.read_text()).values()
    assert found["verdict"] == verdict and found["proof"]["shifts"] == 64
    assert 0 <= row["seconds_battery"] <= row["seconds"]
    assert "seconds_battery" not in row["metrics"]
    assert ("circular_consistency" in row["metrics"]) == (verdict != "none: flatten head")


def test_a_directory_without_a_run_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["certify", str(tmp_path / "nothing")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nothing" in error

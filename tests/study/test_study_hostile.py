"""`cnnjax study` in hostile hands: killed at random, interrupted twice, its files made nonsense."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from study_commands import GRID, SLOWER, Command, changed, children, copy, finish, numbers, wait_for

from cnnjax.cli import main


@pytest.fixture(scope="module")
def finished(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny grid, run once, undisturbed."""
    out = tmp_path_factory.mktemp("studies") / "finished"
    status, _, errors = finish(command(*GRID, f"--out={out}", "--workers=2"))
    assert status == 0, errors
    return out


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_random_instants_it_still_ends_in_the_same_table(
    command: Command, tmp_path: Path
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    assert finish(command(*SLOWER, f"--out={calm}", "--workers=2"))[0] == 0
    instants = random.Random(0)
    kept: dict[Path, bytes] = {}
    for _ in range(8):
        process = command(*SLOWER, f"--out={out}", "--workers=2")
        time.sleep(instants.uniform(0.0, 6.0))
        workers = children(process.pid)
        if workers and instants.random() < 0.5:
            os.kill(instants.choice(workers), signal.SIGKILL)
            time.sleep(instants.uniform(0.0, 0.5))
        process.kill()
        process.communicate()
        now = {path: path.read_bytes() for path in out.glob("trials/*/result.json")}
        assert kept.items() <= now.items()
        assert all(json.loads(text)["status"] == "done" for text in now.values())
        kept = now
    status, _, errors = finish(command(*SLOWER, f"--out={out}", "--workers=2"))
    assert status == 0, errors
    pd.testing.assert_frame_equal(numbers(out), numbers(calm))
    assert not list(out.glob("trials/*/*.tmp"))


@pytest.mark.slow
def test_ctrl_c_twice_is_still_one_line(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = command(*changed(SLOWER, "--epochs=9999"), f"--out={out}", "--workers=2")
    wait_for("trials/*/metrics.jsonl", out)
    workers = children(process.pid)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    status, _, errors = finish(process)
    assert status == 130
    assert errors.count("\n") == 1 and "the same command goes on from there" in errors
    time.sleep(0.6)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def nonsense(path: Path) -> None:
    path.write_text('["not", "an", "object"]')


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("harm", [cut, nonsense])
@pytest.mark.parametrize("name", ["result.json", "config.json", "env.json", "metrics.jsonl"])
def test_a_corrupt_file_costs_at_most_its_trial(
    command: Command, tmp_path: Path, finished: Path, name: str, harm: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    copy(finished, out)
    trial = next((out / "trials").iterdir())
    harm(trial / name)
    status, _, errors = finish(command(*GRID, f"--out={out}", "--workers=1"))
    assert status == 0, errors
    pd.testing.assert_frame_equal(numbers(out), numbers(finished))
    others = [p for p in (out / "trials").glob("*/result.json") if p.parent != trial]
    assert all(p.read_bytes() == (finished / p.relative_to(out)).read_bytes() for p in others)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workers=0"], "workers"),
        (["--workers=-1"], "workers"),
        (["--workers=100000"], "workers: expected at most 16 a core"),
        (["--engine=rya"], "did you mean ray"),
        (["--gpus=0.5"], "'local' takes --workers only"),
        (["--gpus=1.5", "--engine=ray"], "--gpus: expected a number from 0 to 1, or a whole"),
        (["--slurm=partition"], "--slurm: expected KEY=VALUE"),
        (["--out=memory://x"], "memory:// is not supported"),
    ],
)
def test_mistakes_are_one_line_and_run_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    out = tmp_path / "out"
    status, errors = main(["study", *GRID, f"--out={out}", *words]), capsys.readouterr().err
    assert (status, errors.count("\n")) == (2, 1), errors
    assert says in errors
    assert not list(out.glob("trials/*"))

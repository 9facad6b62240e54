"""A real study through the command line: results, resume after kill -9, failures, full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from study_commands import (
    GRID,
    SLOWER,
    Command,
    children,
    copy,
    finish,
    numbers,
    planner_of,
    wait_for,
    workers_of,
)

from cnnjax.cli import main
from cnnjax.config import Config, from_dict
from cnnjax.study.predictions import PER_IMAGE, Predictions
from cnnjax.study.store import TrialFiles
from cnnjax.study.trial import run


@pytest.fixture(scope="module")
def finished(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny grid, run once, undisturbed."""
    out = tmp_path_factory.mktemp("studies") / "finished"
    status, text, errors = finish(command(*GRID, f"--out={out}", "--workers=2"))
    assert status == 0, errors
    assert "shift consistency" in text and "report.html" in text
    return out


def test_a_study_leaves_tables_figures_and_a_report(finished: Path) -> None:
    runs = numbers(finished)
    assert runs["status"].tolist() == ["done", "done"]
    assert runs["accuracy"].between(0, 1).all()
    assert runs[runs["pool"] == "aps"]["consistency"].item() == 1.0
    assert (finished / "report.html").stat().st_size > 20_000
    assert not list(finished.glob("**/*.tmp"))
    for trial in (finished / "trials").iterdir():
        lines = (trial / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_kept_predictions_give_the_figures_again(finished: Path) -> None:
    for trial in (finished / "trials").iterdir():
        kept = Predictions.read(TrialFiles(trial))
        metrics = json.loads((trial / "result.json").read_text())["metrics"]
        assert kept is not None and len(kept.labels) == metrics["test_images"]
        for name in PER_IMAGE:
            assert kept.per_image(name).mean() == pytest.approx(metrics[name], abs=1e-6)


def test_the_same_command_again_runs_nothing(command: Command, finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.glob("trials/*/*")}
    runs = (finished / "runs.csv").read_bytes()
    status, _, errors = finish(command(*GRID, f"--out={finished}"))
    assert status == 0
    assert "2 of 2 trials are done already" in errors
    assert {p: p.stat().st_mtime_ns for p in finished.glob("trials/*/*")} == before
    assert (finished / "runs.csv").read_bytes() == runs


WITNESS = """
import sys
from cnnjax.cli import entry_point
try:
    entry_point()
finally:
    print("in the driver:", sorted({"jax", "flax"} & set(sys.modules)), file=sys.stderr)
"""


def test_jax_is_imported_in_workers_only(command: Command, tmp_path: Path) -> None:
    words = [*GRID, "--pool=max", f"--out={tmp_path / 'out'}"]
    status, _, errors = finish(command(*words, program=[sys.executable, "-c", WITNESS]))
    assert status == 0 and "in the driver: []" in errors, errors


@pytest.mark.slow
def test_same_seed_same_bits_alone_or_in_a_study(finished: Path) -> None:
    config = json.loads(next(finished.glob("trials/*/config.json")).read_text())
    result = json.loads(next(finished.glob("trials/*/result.json")).read_text())
    alone = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(config)],
        env={k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"},
        capture_output=True,
        text=True,
        check=True,
    )
    again = json.loads(alone.stdout)
    assert again["variables_sha256"] == result["variables_sha256"]
    assert again["metrics"] == result["metrics"]
    assert again["places"] == result["places"]


ALONE = """
import json, sys
from cnnjax.config import from_dict
from cnnjax.study.trial import measure
print(json.dumps(measure(from_dict(json.loads(sys.argv[1])))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["study", "workers", "planner"])
def test_kill_9_loses_nothing_finished(
    command: Command, calm: pd.DataFrame, tmp_path: Path, victim: str
) -> None:
    out = tmp_path / "killed"
    process = command(*SLOWER, f"--out={out}", "--workers=1")
    wait_for("trials/*/result.json", out)
    wait_for("trials/*/metrics.jsonl", out)
    done = {path: path.read_bytes() for path in out.glob("trials/*/result.json")}
    if victim == "study":
        process.kill()
        finish(process)
        status, _, errors = finish(command(*SLOWER, f"--out={out}", "--workers=2"))
    else:
        said = {"workers": "crashed", "planner": "the planning process died (exit code -9)"}
        victims = workers_of(process.pid) if victim == "workers" else [planner_of(process.pid)]
        for child in victims:
            os.kill(child, signal.SIGKILL)
        status, _, errors = finish(process)
        assert said[victim] in errors
    assert status == 0, errors
    assert {path: path.read_bytes() for path in done} == done
    pd.testing.assert_frame_equal(numbers(out), calm)


def test_ctrl_c_says_how_to_resume(command: Command, tmp_path: Path) -> None:
    # Long enough that no machine finishes before the signal comes.
    process = command(*SLOWER, "--epochs=9999", f"--out={tmp_path / 'out'}", "--workers=1")
    wait_for("trials/*/metrics.jsonl", tmp_path / "out")
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    status, _, errors = finish(process)
    assert status == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    time.sleep(0.5)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.slow
def test_a_failed_trial_is_recorded_and_the_rest_goes_on(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*GRID, "--lr=1e38,0.01", "--optimizer=sgd", "--batch_size=4", "--pool=max"]
    status, text, _ = finish(command(*words, f"--out={out}"))
    assert status == 1
    runs = pd.read_csv(out / "runs.csv").set_index("lr")
    assert runs.loc[1e38, "status"] == "failed"
    assert "diverged: the loss is" in runs.loc[1e38, "reason"]
    assert runs.loc[0.01, "status"] == "done"
    assert "Failed:" in text
    assert "diverged" in (out / "report.html").read_text()


@pytest.mark.slow
def test_a_full_disk_stops_with_one_line(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A shell sets the limit: a hook between fork and exec would run in a process that holds JAX.
    words = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", sys.executable, "-m", "cnnjax"]
    env_status, _, errors = finish(command(*GRID, f"--out={out}", program=words))
    assert env_status == 2
    assert "File too large" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not list(out.glob("trials/*/result.json"))
    assert finish(command(*GRID, f"--out={out}"))[0] == 0


@pytest.mark.parametrize("case", ["file", "foreign", "other_study", "unwritable"])
def test_an_unusable_directory_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    out = tmp_path / "out"
    if case == "file":
        out.write_text("a file")
    elif case == "foreign":
        out.mkdir()
        (out / "thesis.tex").write_text("precious")
    elif case == "other_study":
        out.mkdir()
        (out / "study.json").write_text('{"name": "another", "fixed": {}}')
    else:
        out = Path("/proc/nowhere/out")
    assert main(["study", *GRID, f"--out={out}"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert str(out) in errors


def test_anothers_result_under_this_name_is_refused(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    copy(finished, out)
    path = next((out / "trials").glob("*/result.json"))
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "config": {**result["config"], "lr": 0.5}}))
    assert main(["study", *GRID, f"--out={out}"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "holds another trial's result" in errors


def test_run_keeps_a_finished_trial(tmp_path: Path, finished: Path) -> None:
    trial = next((finished / "trials").iterdir())
    config = from_dict(json.loads((trial / "config.json").read_text()))
    assert run(config, trial) == json.loads((trial / "result.json").read_text())
    with pytest.raises(FileExistsError, match="holds another trial"):
        run(Config(), trial)

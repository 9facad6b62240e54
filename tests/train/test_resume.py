"""Stopped or killed at any instant, a run goes on and ends in the bits of an undisturbed one."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from cnnjax.config import Config
from cnnjax.study.compilation import use_cache
from cnnjax.study.store import Store, TrialFiles
from cnnjax.study.trial import run, run_in
from cnnjax.train import training
from cnnjax.train.checkpoints import CheckpointError
from cnnjax.train.saver import Stopped

# 4 epochs of 6 steps, the last one short; everything that has a state of its own.
CONFIG = Config(
    dataset="digits_canvas:side=18:scale=1:train=44:test=20",
    epochs=4,
    batch_size=8,
    widths=(2,),
    dense=(4,),
    norm="batch",
    dropout=0.3,
    pool="stochastic",
    head="gap",
    ema=0.9,
    eval_places=2,
    battery="none",
    checkpoint_every=4,
)
WORDS = [
    *("--dataset=digits_canvas:side=18:scale=1:train=44:test=20", "--epochs=4", "--batch_size=8"),
    *("--widths=2", "--dense=4", "--norm=batch", "--dropout=0.3", "--pool=stochastic"),
    *("--head=gap", "--ema=0.9", "--eval_places=2", "--battery=none"),
]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let all runs of this file share their compilations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        use_cache()
        yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def numbers(out: Path) -> Any:
    """Return all that an undisturbed run may not differ in."""
    result = TrialFiles(out).result()
    assert result is not None and result["status"] == "done", result
    lines = [{k: v for k, v in x.items() if k != "seconds"} for x in TrialFiles(out).metrics()]
    return result["variables_sha256"], result["metrics"], lines


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("calm") / "out"
    run_in(TrialFiles(out), replace(CONFIG, checkpoint_every=None))
    return numbers(out)


def stopping_after(steps: int) -> Callable[[], bool]:
    """Return what turns true at the given count of steps."""
    left = iter(range(steps))
    return lambda: next(left, None) is None


@pytest.mark.slow
def test_train_2n_is_train_n_stop_resume_n(calm: Any, tmp_path: Path) -> None:
    """Stopped in the middle of the first epoch, at an epoch's end, and twice more."""
    out = tmp_path / "out"
    for steps in (1, 4, 5, 0):
        with pytest.raises(Stopped):
            run_in(TrialFiles(out), CONFIG, stop=stopping_after(steps))
    run_in(TrialFiles(out), CONFIG)
    assert numbers(out) == calm


@pytest.mark.slow
def test_curves_outlive_a_try_that_tells_nothing(
    calm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the checkpoint is read again: the lines so far stay, and are not doubled."""
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run_in(TrialFiles(out), CONFIG, stop=stopping_after(15))
    lines = TrialFiles(out).metrics()
    assert [line["epoch"] for line in lines] == [1, 2]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cnnjax.data.load", interrupted)
        run_in(TrialFiles(out), CONFIG)
    assert TrialFiles(out).metrics() == lines
    with (out / "metrics.jsonl").open("a") as file:  # of an epoch after the checkpoint, and torn
        file.write(json.dumps(lines[-1] | {"epoch": 3}) + '\n{"epoch": 4, "lo')
    run_in(TrialFiles(out), CONFIG)
    assert numbers(out) == calm
    assert TrialFiles(out).metrics()[:2] == lines


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_an_epoch_in_one_dispatch_is_the_host_loop(calm: Any, tmp_path: Path, devices: int) -> None:
    """The same lines and variables up to rounding; going on in the middle of an epoch too."""
    config = replace(CONFIG, unit="epoch", devices=devices)
    run_in(TrialFiles(tmp_path / "a"), replace(config, checkpoint_every=None))
    with pytest.raises(Stopped):
        run_in(TrialFiles(tmp_path / "b"), config, stop=stopping_after(1))
    steps = sorted(path.name for path in (tmp_path / "b" / "checkpoints").iterdir())
    assert steps == ["4", "5"]
    run_in(TrialFiles(tmp_path / "b"), config)
    for out in (tmp_path / "a", tmp_path / "b"):
        lines = numbers(out)[2]
        assert [x["step"] for x in lines] == [6, 12, 18, 24]
        found, expected = ([x["loss"] for x in y] for y in (lines, calm[2]))
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.slow
def test_accelerators_take_several_steps_at_a_time(
    calm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played here: four steps a dispatch and two by themselves, after each of which it may stop."""
    monkeypatch.setattr(training, "pays", lambda split: True)
    monkeypatch.setattr(training, "AT_A_TIME", 4)
    for steps in (0, 1, 2):
        with pytest.raises(Stopped):
            run_in(TrialFiles(tmp_path / "b"), CONFIG, stop=stopping_after(steps))
    run_in(TrialFiles(tmp_path / "b"), CONFIG)
    run_in(TrialFiles(tmp_path / "a"), CONFIG)
    assert numbers(tmp_path / "b") == numbers(tmp_path / "a")
    found, expected = ([x["loss"] for x in y] for y in (numbers(tmp_path / "a")[2], calm[2]))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_costs_some_steps_and_no_bit(calm: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run_in(TrialFiles(out), CONFIG, stop=stopping_after(9))
    steps = sorted(int(path.name) for path in (out / "checkpoints").iterdir())
    assert steps == [4, 8, 10]
    data = max((out / "checkpoints" / "10" / "state").rglob("*"), key=lambda p: p.stat().st_size)
    os.truncate(data, 3)
    with pytest.warns(RuntimeWarning, match="10 is damaged"):
        run_in(TrialFiles(out), CONFIG)
    assert numbers(out) == calm
    gc.collect()  # Orbax leaves the coroutines of a failed read behind


def test_another_run_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run_in(TrialFiles(out), CONFIG, stop=stopping_after(2))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(FileExistsError, match=r"holds another trial, \w+; choose a new directory"):
        run_in(TrialFiles(out), replace(CONFIG, seed=1))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "config.json").unlink()
    with pytest.raises(CheckpointError, match="another run's, with another seed"):
        run_in(TrialFiles(out), replace(CONFIG, seed=1))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_status_1_without_a_directory_too(capsys: Any) -> None:
    from cnnjax.cli import main

    assert main(["train", *WORDS, "--lr=1e36", "--optimizer=sgd", "--norm=none"]) == 1
    errors = capsys.readouterr().err
    assert "cnnjax train: diverged: the loss is" in errors and errors.count("\n") == 1


def test_what_is_in_use_or_not_ours_is_left_alone(tmp_path: Path, capsys: Any) -> None:
    from cnnjax.cli import main

    with Store(tmp_path).lock():
        assert main(["train", *WORDS, f"--out={tmp_path}"]) == 2
    errors = capsys.readouterr().err
    assert "in use by a running command" in errors and errors.count("\n") == 1
    (tmp_path / "config.json").write_text("mine: not JSON")
    assert main(["train", *WORDS, f"--out={tmp_path}"]) == 2
    errors = capsys.readouterr().err
    assert "holds a config.json that is no trial's" in errors and errors.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json"}
    assert (tmp_path / "config.json").read_text() == "mine: not JSON"


@pytest.mark.parametrize(
    "wrong", ["--stride=7", "--dataset=mnist", "--momentum=0.5", "--eval_shift=99"]
)
def test_a_mistake_is_told_before_the_directory_is_anybodys(
    tmp_path: Path, capsys: Any, wrong: str
) -> None:
    from cnnjax.cli import main

    words = [*WORDS, "--pool=aps", "--padding=CIRCULAR", wrong, f"--data_dir={tmp_path}"]
    assert main(["train", *words, f"--out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_run_refuses_what_does_not_fit_and_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not divide the map"):
        run(replace(CONFIG, pool="aps", stride=7, padding="CIRCULAR"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_divergence_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = replace(CONFIG, optimizer="sgd", lr=1e36, norm="none", warmup=0.0, checkpoint_every=1)
    result = run_in(TrialFiles(tmp_path / "out"), config)
    assert result["status"] == "failed"
    assert " at step " in result["reason"] and "largest gradients" in result["reason"]
    assert "last good checkpoint: step " in result["reason"]


def command(out: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cnnjax", "train", *WORDS, f"--out={out}", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"no {path}")


def killed(out: Path, kills: int, seed: int) -> None:
    """Kill a run that saves after every step, `kills` times, each somewhere in its life."""
    rng = random.Random(seed)
    for _ in range(kills):
        process = command(out, "--checkpoint_every=1")
        wait_for(out / "checkpoints")
        time.sleep(rng.uniform(0.0, 1.5))
        process.kill()
        process.communicate()
        if TrialFiles(out).result() is not None:
            return
    status, errors = end(command(out, "--checkpoint_every=1"))
    assert status == 0, errors


@pytest.mark.slow
def test_ctrl_c_while_a_checkpoint_is_written_is_one_line(tmp_path: Path) -> None:
    # Tests that run in the background have Ctrl-C ignored, and would pass that on; not a handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = command(tmp_path / "out", "--checkpoint_every=1", "--epochs=9999")
    signal.signal(signal.SIGINT, before)
    wait_for(tmp_path / "out" / "checkpoints" / "3")  # most of the time it waits for the disk
    process.send_signal(signal.SIGINT)
    status, errors = end(process)
    said = [line for line in errors.splitlines() if not line.startswith("epoch ")]
    assert (status, len(said)) == (130, 1), errors
    assert "the same command goes on from the last checkpoint" in said[0]


def test_kill_9_in_the_middle(calm: Any, tmp_path: Path) -> None:
    killed(tmp_path / "out", 2, seed=0)
    assert numbers(tmp_path / "out") == calm


@pytest.mark.long
@pytest.mark.slow
def test_kill_9_at_20_instants(calm: Any, tmp_path: Path) -> None:
    for number in range(5):
        killed(tmp_path / str(number), 4, seed=number + 1)
        assert numbers(tmp_path / str(number)) == calm


@pytest.mark.slow
def test_sigterm_saves_and_says_resumable(calm: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = command(out, "--checkpoint_every=1")
    wait_for(out / "checkpoints")
    process.send_signal(signal.SIGTERM)
    status, errors = end(process)
    assert status == 75, errors
    assert "the same command goes on from there" in errors.splitlines()[-1]
    status, errors = end(command(out))
    assert status == 0, errors
    assert " images/s " in errors and " s left" in errors
    assert numbers(out) == calm


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint_every=3"], "checkpoint_every: expected --out=DIR"),
        (["--checkpoint_every=0", "--out=x"], "checkpoint_every: expected an integer >= 1"),
        (["--devices=99"], "devices: expected at most 8 (cpu), got 99"),
        (["--devices=8", "--batch_size=12"], "batch_size: expected a multiple of 8"),
        (["--devices=2", "--parallel=jit"], "parallel: expected sharded or pmap for 2 devices"),
        (["--parallel=pmpa"], "did you mean pmap"),
        (["--microbatches=3"], "batch_size: expected a multiple of 3"),
        (["--unit=epoch", "--parallel=pmap"], "unit: expected step with pmap, got 'epoch'"),
        (["--lr=-1"], "lr: expected a number from 0.0 to 1e+38, got -1"),
        (["--epochs=0"], "epochs: expected an integer from 1 to 1000000, got 0"),
        (["--coordinator=localhost:99"], "expected all three or none"),
        (["--num_processes=2000000000", "--process_id=0"], "num_processes: expected at most 64"),
        (["--threads=100000"], "threads: expected an integer from 1 to 1024, got 100000"),
        (["--out="], "out: expected a directory, got ''"),
        (["--lr=nan"], "lr: expected a number from 0.0 to 1e+38, got nan"),
        (["--lr=1e39"], "lr: expected a number from 0.0 to 1e+38, got 1e+39"),
        (["--profile=/dev/null/x"], "Not a directory: '/dev/null/x'"),
        (["--epochs=9999999999"], "epochs: expected an integer from 1 to 1000000"),
        (["--train_shift=9999999999"], "train_shift: expected an integer from 0 to 4096"),
        (["--epochs=1.5"], "epochs: expected int, got '1.5'"),
        (["--seed=-1"], "seed: expected an integer from 0"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: Any) -> None:
    from cnnjax.cli import main

    assert main(["train", *words]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert jax.process_count() == 1

"""However its seeds run, a study has the same trials, files and numbers; each arm compiles once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnjax.cli import main
from cnnjax.config import Config, to_dict, trial_id
from cnnjax.study import engines, seeds
from cnnjax.study.engines.interface import Event, Job, Resources
from cnnjax.study.seeds import SEEDS_STRATEGIES
from cnnjax.study.store import Store
from cnnjax.study.work import run_job

CONFIG = Config(
    pool="max",
    dataset="digits_canvas:side=12:scale=1:train=76:test=20",
    epochs=2,
    batch_size=8,
    widths=(2,),
    dense=(),
    norm="batch",
    head="gap",
    optimizer="sgd",
    lr=0.05,
    eval_places=2,
    battery="none",
)
CONFIGS = [replace(CONFIG, seed=seed) for seed in (0, 1)] + [replace(CONFIG, pool="mean")]


def ran(strategy: str, out: Path) -> tuple[dict[str, Any], list[Event]]:
    Store(out).claim({"name": "seeds", "fixed": {}})
    jobs = [Job(trial_id(config), to_dict(config)) for config in CONFIGS]
    run = seeds.engine(strategy, "local")
    events = list(run(jobs, partial(run_job, out=str(out)), Resources(workers=2)))
    return Store(out).results(map(trial_id, CONFIGS)), events


@pytest.mark.slow
def test_all_strategies_write_the_same_trials(tmp_path: Path) -> None:
    """Worker processes bit for bit; one program to 1e-5 after 20 steps of SGD."""
    found = {name: ran(name, tmp_path / name) for name in SEEDS_STRATEGIES}
    expected, _ = found["sequential"]
    assert list(expected) == [trial_id(config) for config in CONFIGS]
    for name, (results, events) in found.items():
        assert results.keys() == expected.keys()
        kinds = [[e.kind for e in events if e.trial_id == trial] for trial in results]
        assert kinds == [["epoch", "epoch", "done"]] * 3
        for trial, result in results.items():
            files, others = (Store(tmp_path / n).trial(trial) for n in (name, "sequential"))
            assert {p.name for p in files.root.iterdir()} == {p.name for p in others.root.iterdir()}
            assert files.config() == others.config()
            assert result.keys() == expected[trial].keys()
            mine, theirs = files.variables(), others.variables()
            if name == "processes":
                assert result["variables_sha256"] == expected[trial]["variables_sha256"]
            for leaf in theirs:
                np.testing.assert_allclose(mine[leaf], theirs[leaf], rtol=0, atol=1e-5)
    together = Store(tmp_path / "vmapped").trial(trial_id(CONFIGS[0])).env()
    assert together["seeds_at_once"] == 2
    assert "seeds_at_once" not in Store(tmp_path / "vmapped").trial(trial_id(CONFIGS[2])).env()


def test_the_platform_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "accelerated", lambda: False)
    assert seeds.engine(None, "local") is engines.find("local")
    monkeypatch.setattr(seeds, "accelerated", lambda: True)
    assert seeds.engine(None, "local") is seeds.vmapped
    assert seeds.engine("processes", "local") is engines.find("local")


def test_one_program_runs_here_alone() -> None:
    with pytest.raises(ValueError, match="'vmapped' is for --engine=local, got --engine=slurm"):
        seeds.engine("vmapped", "slurm")


def test_an_unknown_strategy_is_one_line(tmp_path: Path, capsys: Any) -> None:
    words = ["study", "--pool=max", "--seeds_strategy=vmaped", f"--out={tmp_path / 'x'}"]
    assert main(words) == 2
    assert "seeds_strategy: unknown name 'vmaped'; did you mean vmapped" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_an_arm_is_compiled_once_however_many_seeds(tmp_path: Path) -> None:
    """The compile cache does not grow with the seeds; it does with a pool, window or stride."""
    cache, out = tmp_path / "cache", tmp_path / "out"
    env = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}

    def programs(*words: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cnnjax", "study", *GRID, *words, f"--out={out}"],
            env={**env, "CNNJAX_CACHE": str(cache)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return {path.name for path in cache.rglob("*-cache")}

    first = programs("--pool=max,mean", "--seed=0")
    assert len(first) > 3
    assert programs("--pool=max,mean", "--seed=0,1,2") == first
    assert programs("--pool=max,mean,min", "--seed=0,1,2") > first


GRID = [
    *("--stride=2", "--widths=2", "--dense=", "--head=gap", "--epochs=1", "--eval_places=2"),
    *("--dropout=0.2", "--dataset=digits_canvas:side=12:scale=1:train=40:test=20"),
    "--workers=1",
]

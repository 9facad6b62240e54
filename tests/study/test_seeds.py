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
from cnnjax.study import seeds
from cnnjax.study.engines.interface import Event, Resources
from cnnjax.study.engines.local import run
from cnnjax.study.seeds import SEEDS_STRATEGIES, Strategy, choose
from cnnjax.study.store import Store
from cnnjax.study.work import run_job
from cnnjax.train.seeds import group

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


def ran(name: str, out: Path) -> tuple[dict[str, Any], list[Event]]:
    store, strategy = Store(out), SEEDS_STRATEGIES[name]
    store.claim({"name": "seeds", "fixed": {}})
    work = partial(run_job, out=str(out))
    events = list(run(strategy.jobs(CONFIGS), work, strategy.limit(Resources())))
    return store.results(map(trial_id, CONFIGS)), events


@pytest.mark.slow
def test_all_strategies_write_the_same_trials(tmp_path: Path) -> None:
    """Worker processes bit for bit; one program to 1e-5 after 20 steps of SGD."""
    found = {name: ran(name, tmp_path / name) for name in SEEDS_STRATEGIES}
    expected, _ = found["sequential"]
    assert list(expected) == [trial_id(config) for config in CONFIGS]
    for name, (results, events) in found.items():
        assert results.keys() == expected.keys()
        kinds = [
            [e.kind for e in events if e.trial_id == trial and e.kind != "started"]
            for trial in results
        ]
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


def chosen(
    name: str | None = None, engine: str = "local", configs: Any = CONFIGS, **resources: Any
) -> Strategy:
    return choose(name, engine=engine, resources=Resources(**resources), configs=configs)


def test_the_platform_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seeds.platform() == "cpu"
    assert chosen() is chosen(engine="ray") is SEEDS_STRATEGIES["processes"]
    assert chosen(engine="ray", gpus=0.5) is SEEDS_STRATEGIES["vmapped"]
    assert chosen("vmapped").workers is None
    monkeypatch.setattr(seeds, "platform", lambda: "gpu")
    assert chosen() == chosen("vmapped")
    assert chosen().groups is group and chosen().workers == 1
    assert chosen().limit(Resources(workers=3)).workers == 3
    assert chosen("processes") is SEEDS_STRATEGIES["processes"]
    assert chosen(engine="slurm") is SEEDS_STRATEGIES["processes"]


def test_a_platform_is_asked_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(words: Any, **how: Any) -> Any:
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, stdout="gpu\n")

    monkeypatch.setattr(seeds.subprocess, "run", run)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert seeds.platform() == "cpu" and not asked
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert seeds.platform() == "gpu" and asked


def test_a_job_is_a_trial_or_the_seeds_of_an_arm() -> None:
    alone = [replace(CONFIG, checkpoint_every=3, seed=seed) for seed in (5, 6)]
    for name, sizes in {
        "vmapped": [2, 1, 1, 1],
        "processes": [1] * 5,
        "sequential": [1] * 5,
    }.items():
        jobs = SEEDS_STRATEGIES[name].jobs([*CONFIGS, *alone])
        assert [len(job.trials) for job in jobs] == sizes
        found = {trial: config for job in jobs for trial, config in job.trials.items()}
        assert found == {trial_id(c): to_dict(c) for c in [*CONFIGS, *alone]}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--seeds_strategy=vmaped"],
            "seeds_strategy: unknown name 'vmaped'; did you mean vmapped",
        ),
        (["--seeds_strategy=sequential", "--workers=2"], "workers: expected none or 1 with"),
        (
            ["--seeds_strategy=vmapped", "--unit=epoch", "--seed=0,1"],
            "can be one program; with unit=epoch each trains alone",
        ),
        (["--seeds_strategy=vmapped", "--gpus=1"], "engine: 'local' takes --workers only"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    tmp_path: Path, capsys: Any, flags: list[str], says: str
) -> None:
    words = ["study", *GRID, "--pool=max", *flags, f"--out={tmp_path / 'x'}"]
    words.remove("--workers=1")
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert says in errors and errors.count("\n") == 1
    assert not list(tmp_path.glob("x/trials/*"))


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

    first = programs("--pool=max", "--seed=0")
    assert len(first) > 3
    assert programs("--pool=max", "--seed=0,1,2") == first
    assert programs("--pool=max,mean", "--seed=0") > first


GRID = [
    *("--stride=2", "--widths=2", "--dense=", "--head=gap", "--epochs=1", "--eval_places=2"),
    *("--dropout=0.2", "--dataset=digits_canvas:side=12:scale=1:train=40:test=20"),
    "--workers=1",
]

"""Trials trained together have their own files, numbers and failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnjax.config import Config, trial_id
from cnnjax.study import together
from cnnjax.study.engines.interface import Event
from cnnjax.study.seeds import SEEDS_STRATEGIES
from cnnjax.study.store import Store, TrialFiles
from cnnjax.study.together import run_together
from cnnjax.study.trial import run_in
from cnnjax.study.work import run_job
from cnnjax.train.progress import Diverged
from cnnjax.train.watch import Callback

CONFIG = Config(
    pool="max",
    dataset="digits_canvas:side=12:scale=1:train=40:test=20",
    epochs=1,
    batch_size=8,
    widths=(2,),
    dense=(),
    head="gap",
    optimizer="sgd",
    eval_places=2,
    battery="none",
)
CONFIGS = [replace(CONFIG, seed=seed) for seed in (0, 1)]
NAMES = [trial_id(config) for config in CONFIGS]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "study")
    found.claim({"name": "together", "fixed": {}})
    return found


def nobody(trial: str, line: Any) -> None:
    """Hear of an epoch."""


@pytest.mark.slow
def test_each_has_the_files_and_numbers_of_itself_alone(store: Store, tmp_path: Path) -> None:
    told: list[str] = []
    rows = run_together(store, CONFIGS, lambda trial, line: told.append(trial))
    assert told == NAMES
    for config, row in zip(CONFIGS, rows, strict=True):
        files = store.trial(trial_id(config))
        assert files.result() == row and row["status"] == "done" and row["id"] == trial_id(config)
        assert files.env()["seeds_at_once"] == 2
        assert [line["epoch"] for line in files.metrics()] == [1]
        assert files.data()["sha256"] == row["data_sha256"]  # type: ignore[index]
    alone = Store(tmp_path / "alone").trial(NAMES[1])
    expected, files = run_in(alone, CONFIGS[1]), store.trial(NAMES[1])
    assert rows[1].keys() == expected.keys()
    ours = {path.name for path in files.root.iterdir()}
    assert ours == {path.name for path in alone.root.iterdir()} - {"checkpoints"}
    for name, leaf in alone.variables().items():
        np.testing.assert_allclose(files.variables()[name], leaf, rtol=0, atol=1e-5)
    assert files.predictions().keys() == alone.predictions().keys()  # type: ignore[union-attr]


def test_a_failure_is_the_trials_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        together, "train_seeds", lambda *given: [Diverged("the loss is nan", 3), {"params": {}}]
    )
    monkeypatch.setattr(
        together, "row", lambda config, *given, **more: {"status": "done", "metrics": {}}
    )
    bad, good = run_together(store, CONFIGS, nobody)
    assert bad["reason"] == "diverged: the loss is nan" and good["status"] == "done"
    assert [r["status"] for r in store.results(NAMES).values()] == ["failed", "done"]

    def bug(config: Config, *given: Any, **more: Any) -> Any:
        raise RuntimeError(f"seed {config.seed}")

    monkeypatch.setattr(together, "row", bug)
    assert run_together(store, CONFIGS, nobody)[1]["reason"] == "RuntimeError: seed 1"


def test_what_the_program_fails_of_each_tries_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*given: Any) -> Any:
        raise RuntimeError("RESOURCE_EXHAUSTED")

    def full(*given: Any) -> Any:
        raise OSError(28, "No space left on device")

    def alone(files: TrialFiles, config: Config, watch: Callback) -> dict[str, Any]:
        watch.epoch({"epoch": 1})
        return {"seed": config.seed, "in": files.root.name}

    told: list[str] = []
    monkeypatch.setattr(together, "train_seeds", too_large)
    monkeypatch.setattr(together, "run_in", alone)
    rows = run_together(store, CONFIGS, lambda trial, line: told.append(trial))
    assert rows == [{"seed": seed, "in": NAMES[seed]} for seed in (0, 1)] and told == NAMES
    monkeypatch.setattr(together, "train_seeds", full)
    with pytest.raises(OSError, match="No space left"):
        run_together(store, CONFIGS, nobody)


def test_a_worker_runs_together_what_has_no_result(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[int]] = []

    def note(store: Store, configs: list[Config], report: Any) -> list[dict[str, Any]]:
        ran.append([config.seed for config in configs])
        report(trial_id(configs[0]), {"epoch": 1})
        return [{"status": "done", "seed": config.seed} for config in configs]

    monkeypatch.setattr(together, "run_together", note)
    three = [*CONFIGS, replace(CONFIG, seed=2)]
    (job,) = SEEDS_STRATEGIES["vmapped"].jobs(three)
    store.trial(NAMES[1]).finish({"status": "failed", "reason": "made up"})
    told: list[Event] = []
    ends = run_job(job, told.append, out=str(store.root))
    assert [event.kind for event in ends] == ["done", "failed", "done"]
    assert [event.trial_id for event in ends] == list(map(trial_id, three))
    starts = [Event("started", trial_id(config)) for config in (three[0], three[2])]
    assert told == [*starts, Event("epoch", NAMES[0], {"epoch": 1})]
    run_job(job, told.append, out=str(store.root), again=True)
    assert ran == [[0, 2], [0, 1, 2]]

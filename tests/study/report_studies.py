"""Made-up studies for pages: results without training, cards without tracing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.config import Config, to_dict, trial_id
from cnnjax.study.grid import Contrast, Study
from cnnjax.study.predictions import Predictions
from cnnjax.study.rows import failed
from cnnjax.study.store import Store

CARD = {
    "parameters": 100,
    "flops": 2000,
    "activation_bytes": 400,
    "resolution": "2x2",
    "receptive_field": "5x5",
    "total_stride": "4x4",
    "phase": "0x0",
    "constant_gain": None,
}
STUDY = Study(
    name="tiny_grid",
    question='Is <this> & "that" escaped?',
    base=Config(padding="CIRCULAR", head="gap", window=3),
    axes={"pool": ("max", "mean", "aps"), "stride": (2, 3), "seed": (0, 1, 2)},
    contrast=Contrast("consistency", {"pool": "aps"}, {"pool": "max"}, expected=1, source="A & B"),
)
OFFSETS = [[i, j] for i in (-2, 0, 2) for j in (-2, 0, 2)]
STRENGTH = {"max": 0.5, "mean": 0.55, "aps": 0.8}

Change = Callable[[Config, dict[str, Any]], dict[str, Any] | None]


def keep(config: Config, result: dict[str, Any]) -> dict[str, Any]:
    return result


def made_up(config: Config) -> dict[str, Any]:
    """A result with figures that depend on the configuration alone."""
    noise = np.random.default_rng(int(trial_id(config), 16)).normal(scale=0.01, size=3)
    base = STRENGTH.get(str(config.pool), 0.6)
    accuracy, away, alike = (float(base + 0.02 * i + n) for i, n in enumerate(noise))
    return {
        "id": trial_id(config),
        "config": to_dict(config),
        "status": "done",
        "metrics": {
            "accuracy": accuracy,
            "accuracy_away": away,
            "consistency": alike,
            "test_images": 20,
            "shifted_images": 20,
            "circular_accuracy": accuracy,
        },
        "places": {"offsets": OFFSETS, "accuracy": [accuracy] * 9, "boundary": "circular"},
        "certificate": {
            "verdict": "invariant",
            "paragraph": f"{config.pool} <keeps> shifts.",
            "proof": {},
        },
        "data_sha256": "d" * 64,
        "seconds": 1.5,
    }


def predictions(config: Config) -> Predictions:
    rng = np.random.default_rng(int(trial_id(config), 16))
    labels = np.arange(20) % 10
    wrong = rng.random((20, 10)) > STRENGTH.get(str(config.pool), 0.6)
    classes = (labels[:, None] + wrong) % 10
    return Predictions(labels, classes[:, 0], classes[:, 1:], np.asarray(OFFSETS))


def write_study(root: Path, study: Study = STUDY, change: Change = keep, **env: Any) -> Store:
    """Write a study's directory; `change` returns each trial's result, None to leave it open."""
    store = Store(root)
    store.claim(study.describe() | {"command": "cnnjax study --out='a b'"})
    for config in dict.fromkeys(t.runs for t in study.trials()):
        files = store.trial(trial_id(config))
        files.start(to_dict(config), {"jax": "0.1", "cpu": "Fast & <odd>", **env})
        for epoch in (1, 2):
            files.log({"epoch": epoch, "loss": 2.0 / epoch, "accuracy": 0.4 * epoch})
        result = change(config, made_up(config))
        if result is not None:
            if result["status"] == "done":
                files.save_predictions(predictions(config).arrays())
            files.finish(result)
    return store


def fail_max_3(config: Config, result: dict[str, Any]) -> dict[str, Any]:
    """Every run of max at stride 3 diverges."""
    diverged = config.pool == "max" and config.stride == 3
    return failed(config, "diverged: <why> & worse") if diverged else result

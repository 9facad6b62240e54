"""Runs as `cnnjax train --out` leaves them, without the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cnnjax import build, data
from cnnjax.config import Config, to_dict
from cnnjax.study.store import TrialFiles
from cnnjax.study.trial import flat, learnt_from

MakeRun = Callable[..., Path]
SMALL: dict[str, Any] = {"widths": (3, 4), "dense": (), "head": "gap", "padding": "CIRCULAR"}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes an untrained run of a small network and returns its directory."""

    def make(dataset: str = "digits:train=50:test=20", temperature: float | None = None,
             name: str = "run", **choices: Any) -> Path:  # fmt: skip
        config = Config(dataset=dataset, **{**SMALL, **choices})
        loaded = data.load(dataset)
        net = build.build_net(config, loaded.num_classes, loaded.image_shape)
        keys = {"params": jax.random.key(0), "pool": jax.random.key(1)}
        image = jnp.zeros((1, *loaded.image_shape))
        files = TrialFiles(tmp_path / name)
        files.start(to_dict(config), {})
        files.save_data(learnt_from(loaded))
        files.save_variables(flat(jax.jit(lambda: net.init(keys, image, train=False))()))
        metrics = {} if temperature is None else {"temperature": temperature}
        files.finish({"id": name, "status": "done", "metrics": metrics})
        return files.root

    return make

"""Starts studies, with their helper (`import study_commands`); makes runs without training."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd
import pytest

from cnnjax import build, data
from cnnjax.config import Config, to_dict
from cnnjax.study.keeping import flat, learnt_from
from cnnjax.study.store import TrialFiles

sys.path.insert(0, str(Path(__file__).parent))

from study_commands import PROGRAM, SLOWER, Command, finish, numbers


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Start `cnnjax study` with one compile cache for all tests; stop what is left at the end."""
    cache = str(tmp_path_factory.mktemp("cache"))
    env = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, program: Sequence[str] = PROGRAM) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*program, "study", *words],
            env={**env, "CNNJAX_CACHE": cache},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def calm(command: Command, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of the longer grid, run by the local engine, undisturbed."""
    out = tmp_path_factory.mktemp("studies") / "calm"
    status, _, errors = finish(command(*SLOWER, f"--out={out}", "--workers=2"))
    assert status == 0, errors
    return numbers(out)


MakeRun = Callable[..., Path]
SMALL: dict[str, Any] = {"widths": (3, 4), "dense": (), "head": "gap", "padding": "CIRCULAR"}


@functools.cache
def initial(config: Config) -> dict[str, Any]:
    """Return what training the network would start from, by path."""
    loaded = data.load(config.dataset)
    net = build.build_net(config, loaded.num_classes, loaded.image_shape)
    keys = {"params": jax.random.key(0), "pool": jax.random.key(1)}
    image = jnp.zeros((1, *loaded.image_shape))
    return flat(jax.jit(lambda: net.init(keys, image, train=False))())


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes an untrained run of a small network and returns its directory."""

    def make(dataset: str = "digits:train=50:test=20", temperature: float | None = None,
             name: str = "run", **choices: Any) -> Path:  # fmt: skip
        config = Config(dataset=dataset, **{**SMALL, **choices})
        files = TrialFiles(tmp_path / name)
        files.start(to_dict(config), {})
        files.save_data(learnt_from(data.load(dataset)))
        files.save_variables(dict(initial(config)))
        metrics = {} if temperature is None else {"temperature": temperature}
        files.finish({"id": name, "status": "done", "metrics": metrics})
        return files.root

    return make

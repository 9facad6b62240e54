"""Lets these tests import their helper (`import study_commands`), and starts studies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from study_commands import PROGRAM, Command


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

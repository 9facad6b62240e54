"""The two commands of the README: what they say when they cannot do their work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without .venv, as a stranger's."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def call(script: Path, **env: str) -> subprocess.CompletedProcess[str]:
    # Nothing of this test's own environment may help: strangers have none of it.
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "VIRTUAL_ENV")}
    return subprocess.run([str(script)], env={**clean, **env}, capture_output=True, text=True)


def stand_in(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", ["run", "test"])
def test_an_old_python_is_one_line(checkout: Path, script: str) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("bash", "env", "dirname", "basename", "cat", "cksum"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    stand_in(tools / "python3", "exit 1")  # fails the version check, as Python 3.10 does
    done = call(checkout / "scripts" / script, PATH=str(tools))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed" in done.stderr


@pytest.mark.slow
def test_no_network_is_one_line_and_the_next_call_starts_over(checkout: Path) -> None:
    script = checkout / "scripts" / "test"
    done = call(script, PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2  # what it is doing, and why it failed
    assert "is there a network?" in lines[1]
    assert not (checkout / ".venv" / "installed").exists()
    assert "No matching distribution" in (checkout / ".venv" / "install.log").read_text()


def test_a_finished_set_up_is_left_alone(checkout: Path) -> None:
    venv = checkout / ".venv"
    (venv / "bin").mkdir(parents=True)
    stand_in(venv / "bin" / "cnnjax", 'echo "cnnjax $*"')
    wanted = subprocess.run(
        "cat requirements.txt pyproject.toml | cksum",
        shell=True,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (venv / "installed").write_text(wanted)
    done = call(checkout / "scripts" / "run", PYTHON="/nowhere")
    assert (done.returncode, done.stdout) == (0, "cnnjax study\n")


def test_pins_hold_no_address_and_satisfy_the_ranges() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in line and "/" not in line and "@" not in line for line in pins)
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    for package in ("jax", "flax", "optax", "orbax-checkpoint", "absl-py", "pytest"):
        assert package in names

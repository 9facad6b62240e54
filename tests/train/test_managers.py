"""A training under the real srun and mpirun of this machine, where it has them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_table import running_with

MANAGERS = {
    "srun": ("srun", "-n", "2", "--kill-on-bad-exit=1"),
    "mpirun": ("mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"),
}
TRAIN = [
    *(sys.executable, "-m", "cnnjax", "train", "--dropout=0.3", "--norm=batch", "--widths=2"),
    *("--dataset=digits_canvas:side=18:scale=1:train=44:test=20", "--batch_size=4", "--head=gap"),
    *("--epochs=40", "--eval_places=2", "--battery=none", "--checkpoint_every=5", "--dense=4"),
]
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.extra]


@pytest.fixture(params=MANAGERS)
def manager(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the command that starts two processes; skip where it cannot start `true`."""
    words = MANAGERS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]} here")
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True, timeout=20)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{words[0]} starts nothing here: {error}")
    return words


def test_killed_and_started_again_ends_in_the_same_bits(
    manager: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}

    def command(name: str) -> list[str]:
        return [*manager, *TRAIN, f"--out={tmp_path / name}"]

    def finished(name: str) -> str:
        subprocess.run(command(name), check=True, capture_output=True, env=environment)
        result = json.loads((tmp_path / name / "result.json").read_text())
        assert result["status"] == "done"
        return str(result["variables_sha256"])

    with subprocess.Popen(command("cut"), stderr=subprocess.DEVNULL, env=environment) as running:
        while not list(tmp_path.glob("cut/checkpoints/[0-9]*")):
            assert running.poll() is None
            time.sleep(0.02)
        os.kill(running_with(sys.executable, f"--out={tmp_path / 'cut'}")[-1], signal.SIGKILL)
        assert running.wait(timeout=90) != 0
    assert not (tmp_path / "cut" / "result.json").exists()
    assert finished("cut") == finished("whole")

"""Ctrl-C and SIGTERM are held where they must be and heard once; in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

BOTH = """
import os, signal
from cnnjax.study.engines import signals

try:
    with signals.interrupting():
        with signals.held():
            for number in signals.ENDINGS:
                os.kill(os.getpid(), number)
            print("held", flush=True)
        print("not reached")
except KeyboardInterrupt:
    print("interrupted")
os.kill(os.getpid(), signal.SIGTERM)
print("again")
"""

CAUGHT = """
import os, signal
from cnnjax.study.engines import signals

with signals.interrupting():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("again")
"""

FIRST_PROCESS = """
import multiprocessing, signal
from cnnjax.study.engines import signals

def waiting():
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

def say():
    print("child", waiting() == sorted(signals.ENDINGS))
    signals.release()
    print("released", waiting() == [])

if __name__ == "__main__":
    with signals.held():
        process = multiprocessing.get_context("spawn").Process(target=say)
        process.start()
        print("parent", waiting() == sorted(signals.ENDINGS), flush=True)
    process.join()
    print("after", waiting() == [])
"""

IGNORED = """
import os, signal
from cnnjax.study.engines import signals

with signals.interrupting():
    signals.ignore()
    os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
print("went on")
"""


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        pytest.param(BOTH, ["held", "interrupted", "again"], id="both at once"),
        pytest.param(CAUGHT, ["interrupted", "again"], id="caught within the block"),
        pytest.param(
            FIRST_PROCESS,
            ["parent True", "child True", "released True", "after True"],
            id="held as the first process starts",
        ),
        pytest.param(IGNORED, ["went on"], id="ignored"),
    ],
)
def test_signals_are_heard_once(tmp_path, program, lines):
    path = tmp_path / "program.py"
    path.write_text(program)
    ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    assert (ran.stdout.splitlines(), ran.stderr, ran.returncode) == (lines, "", 0)

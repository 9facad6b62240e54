"""The lock: one writer, none left behind by the dead, and a stand-in where there are no locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cnnjax.study import lock
from cnnjax.study.lock import OWNER, hold

HOLDER = """
import errno, fcntl, sys, time
from pathlib import Path
from cnnjax.study.lock import hold
if sys.argv[2] == "without":
    def none(file, how):
        raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = none
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["with", "without"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with the system's locks, and as on a file system that has none."""
    if request.param == "without":

        def none(file: object, how: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
    return request.param


def test_one_at_a_time(tmp_path: Path, locks: str) -> None:
    with hold(tmp_path), pytest.raises(BlockingIOError, match="is in use by"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_kill_9_leaves_no_lock_behind(tmp_path: Path, locks: str) -> None:
    words = [sys.executable, "-c", HOLDER, str(tmp_path), locks]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="is in use by"), hold(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
    with hold(tmp_path):
        pass


def owner(root: Path, **changes: object) -> Path:
    path = root / OWNER
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": "1", "key": "k"}
    path.write_text(json.dumps({**me, **changes}))
    return path


@pytest.mark.parametrize("locks", ["without"], indirect=True)
def test_whose_lock_is_taken_over(tmp_path: Path, locks: str) -> None:
    owner(tmp_path)  # this process's id, used again: it began at another time
    with hold(tmp_path):
        pass
    path = owner(tmp_path, host="elsewhere")
    with pytest.raises(BlockingIOError, match=f"of elsewhere; .*delete {path}"), hold(tmp_path):
        pass
    assert path.exists()
    path.write_text("{")  # whoever it was, nobody can tell that it is gone
    with pytest.raises(BlockingIOError, match="delete"), hold(tmp_path):
        pass


@pytest.mark.parametrize("locks", ["without"], indirect=True)
def test_a_faster_process_keeps_what_it_took(
    tmp_path: Path, locks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = owner(tmp_path)
    fresh = {"host": "h", "pid": 7, "started": "2", "key": "fresh"}

    def take_over_first(found: dict[str, object]) -> bool:
        path.write_text(json.dumps(fresh))
        return True

    monkeypatch.setattr(lock, "_is_gone", take_over_first)
    with pytest.raises(BlockingIOError), hold(tmp_path):
        pass
    assert json.loads(path.read_text()) == fresh


def test_another_error_is_not_taken_for_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: object, how: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), hold(tmp_path):
        pass

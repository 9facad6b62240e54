"""One writer at a time for a directory, also where the file system has no locks.

    with hold(Path("runs/mine")):
        ...

The system's own lock (flock) ends with its process, however that dies. Where a file system has
none (some NFS), a file with the owner's host and process takes its place: left behind by a process
of this host that is gone, it is taken over; one of another host must be deleted by hand.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
OWNER = ".owner.json"


@contextlib.contextmanager
def hold(root: Path) -> Iterator[None]:
    """Hold a directory, made if need be; BlockingIOError where another process has it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = open(root / ".lock", "a")  # noqa: SIM115 (closed below, with the lock)
    except OSError as error:
        raise type(error)(f"--out={root}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"--out={root} is in use by a running command; wait for it or stop it"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            with _owned(root):
                yield
            return
        yield


@contextlib.contextmanager
def _owned(root: Path) -> Iterator[None]:
    path, me = root / OWNER, _me()
    if not _create(path, me):
        owner = _read(path)
        if not _is_gone(owner) or not _take_away(path, owner) or not _create(path, me):
            who = f"process {owner.get('pid')} of {owner.get('host')}"
            raise BlockingIOError(
                f"--out={root} is in use by {who}; if that is gone for good, delete {path}"
            )
    try:
        yield
    finally:
        if _read(path) == me:
            path.unlink(missing_ok=True)


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "key": _key()}


def _key() -> str:
    return uuid.uuid4().hex


def _started(pid: int) -> str | None:
    """Return when a process began, in the kernel's own count: a process id may be used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_gone(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError, ValueError, TypeError, KeyError):
        return False
    return _started(int(owner["pid"])) != owner.get("started")


def _create(path: Path, owner: dict[str, Any]) -> bool:
    """Make the file, whole; False where there is one. A link is atomic on NFS too."""
    temporary = path.with_name(f"{path.name}.{owner['key']}.tmp")
    temporary.write_text(json.dumps(owner))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _take_away(path: Path, owner: dict[str, Any]) -> bool:
    """Remove the file of an owner that is gone; False where another process was faster."""
    aside = path.with_name(f"{path.name}.{_key()}.tmp")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    mine = _read(aside) == owner
    if not mine:  # a new owner's, which came between
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
    return mine


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}

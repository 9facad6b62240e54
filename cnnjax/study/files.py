"""Files that are whole or not there: on a file system, or as objects of a store.

    root = place("runs/mine")                 # or gs://, s3://, az://
    write_json(root / "result.json", {...})   # the old file or the whole new one, never half
    read_json(root / "result.json")           # None where it is missing or not whole

On a file system: a temporary name, a flush to disk, a rename. An object store shows an object only
once all of it is there, so it is written at once; nothing can be appended to and nothing locked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from pathlib import Path
from typing import Any

# The stores that etils.epath knows, and what each needs beside fsspec.
STORES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}


def place(root: str | os.PathLike[str]) -> Path:
    """Return the path of a directory, which need not exist.

    ValueError for an address that is none of the STORES, or whose package is missing.
    """
    scheme, mark, _ = os.fspath(root).partition("://")
    if not mark:
        return Path(root)
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise ValueError(
            f"--out={os.fspath(root)}: expected a directory or an address of {known}; "
            f"{scheme}:// is not supported"
        )
    for package in ("fsspec", STORES[scheme]):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"--out={os.fspath(root)}: needs {package}, which is not installed")
    from etils import epath

    return epath.Path(root)


def is_store(path: Path) -> bool:
    """Return whether the path lies in an object store."""
    return "://" in os.fspath(path)


def everywhere(path: Path) -> str:
    """Return the path as a worker in another directory or on another machine finds it."""
    return os.fspath(path) if is_store(path) else os.path.abspath(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that `path` is either the old file or the whole new one, also after a crash."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place."""
    if is_store(path):
        try:
            path.write_bytes(content)
        except OSError as error:  # a store does not say which object it was
            raise type(error)(f"{os.fspath(path)}: {error}") from error
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by the process's id: two machines that share the directory may have the same.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(path)  # a full disk does not say which file it was
        raise


def read_json(path: Path) -> Any:
    """Return the JSON value of a file; None where it is missing or not whole."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a file; None where it is missing, not whole or no object."""
    value = read_json(path)
    return value if isinstance(value, dict) else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file; a torn last line (a kill while writing) is dropped.

    ValueError where another line is no JSON object.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").splitlines()
    values = []
    for number, line in enumerate(lines, start=1):
        value = _parsed(line)
        if isinstance(value, dict):
            values.append(value)
        elif number < len(lines):
            raise ValueError(f"{path}: line {number} is not JSON; delete the file to go on without")
    return values


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class Journal:
    """A JSONL file that one process writes line by line, from the start; readers may look on.

    OSError where another process has begun the file anew: then this one's work is not wanted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = b""  # all of it, for a store that cannot append
        self._inode: int | None = None
        self._stale = False

    def start(self, *, keep: bool = False) -> None:
        """Begin the file anew; with `keep` what is in it stays until the first line is written."""
        old = self.path.read_bytes() if keep and self.path.exists() else b""
        self._begin(old)
        self._stale = bool(old)

    def _begin(self, content: bytes) -> None:
        write_bytes(self.path, content)
        self._written, self._stale = content, False
        self._inode = None if is_store(self.path) else self.path.stat().st_ino

    def append(self, value: Any) -> None:
        """Write one more line."""
        line = (json.dumps(value) + "\n").encode()
        if is_store(self.path):
            self._written += line
            self.path.write_bytes(self._written)
            return
        with open(self.path, "ab") as file:
            # A file begun anew is another file of the same name: lines of two tries never mix.
            if self._inode not in (None, os.fstat(file.fileno()).st_ino):
                raise FileExistsError(f"{self.path}: another process has begun this trial anew")
            if self._stale:
                self._begin(line)
            else:
                file.write(line)

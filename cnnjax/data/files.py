"""Where data files lie and whether they are the official ones: card and directory -> bytes.

A set's files may sit in DATA_DIR/<folder>/, directly in DATA_DIR, and in either case below the
folder name of the official archive (`cifar-10-batches-bin`). DATA_DIR is the argument, else the
environment variable CNNJAX_DATA, else ~/.cache/cnnjax.

    directory, files = locate(card, data_root(None))
    raw = read_bytes(directory, files[0], verify=True)
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from cnnjax.data.dataset import DatasetCard, File


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the data directory: the argument, else $CNNJAX_DATA, else ~/.cache/cnnjax."""
    return Path(data_dir or os.environ.get("CNNJAX_DATA") or "~/.cache/cnnjax").expanduser()


def candidates(card: DatasetCard, root: Path) -> list[tuple[Path, tuple[File, ...]]]:
    """Return the directories where a set's files may lie, best first, each with its file group."""
    return [
        (directory, files)
        for layout, files in card.layouts.items()
        for base in (root / card.folder, root)
        for directory in dict.fromkeys((base / layout, base))
    ]


def locate(card: DatasetCard, root: Path) -> tuple[Path, tuple[File, ...]]:
    """Return the first directory that holds files of the set, and the files that belong there.

    Raises FileNotFoundError naming the first missing file and the places looked at.
    """
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"data_dir: {root} is not a directory")
    places = candidates(card, root)
    for directory, files in places:
        if any(find(directory, file) for file in files):
            return directory, files
    seen = ", ".join(dict.fromkeys(str(directory) for directory, _ in places))
    remedy = f"run `cnnjax data fetch {card.folder}` or" if card.downloads else "put them there or"
    raise FileNotFoundError(
        f"{card.name}: {places[0][1][0].name} not found in {seen}; {remedy} set data_dir"
    )


def find(directory: Path, file: File) -> Path | None:
    """Return the path of the file, plain before .gz, or None."""
    for name in (file.name, f"{file.name}.gz"):
        if (directory / name).is_file():
            return directory / name
    return None


def read_bytes(directory: Path, file: File, *, verify: bool) -> bytes:
    """Return the uncompressed bytes of a file, plain or .gz.

    Raises FileNotFoundError if missing and OSError, naming the file, if it is empty, not gzip,
    truncated, or (with `verify`) not the official one.
    """
    path = find(directory, file)
    if path is None:
        raise FileNotFoundError(f"{directory / file.name}: not found, plain or .gz")
    stored = path.read_bytes()
    if not stored:
        raise OSError(f"{path}: the file is empty")
    content = gunzip(stored, path) if path.suffix == ".gz" else stored
    if verify:
        check_official(path, file, content, stored)
    return content


def gunzip(stored: bytes, path: Path) -> bytes:
    """Return the uncompressed bytes; damage raises OSError naming the file."""
    try:
        return gzip.decompress(stored)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise OSError(f"{path}: not a whole gzip file ({error})") from error


def check_official(path: Path, file: File, content: bytes, stored: bytes) -> None:
    """Raise OSError unless the bytes are the official ones."""
    data, expected = (content, file.md5) if file.md5 else (stored, file.gz_md5)
    accept = "add verify=false to the data set's name to read it all the same"
    if not file.md5 and path.suffix != ".gz":
        raise OSError(f"{path}: only {file.name}.gz has an official checksum; {accept}")
    if file.md5 and file.size and len(content) != file.size:
        raise OSError(
            f"{path}: {len(content)} bytes where the official file has {file.size}; {accept}"
        )
    found = md5(data)
    if found != expected:
        raise OSError(f"{path}: MD5 {found} differs from the official {expected}; {accept}")


def md5(data: bytes) -> str:
    """Return the MD5 sum in hexadecimal: it guards against damage, not against an attacker."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()

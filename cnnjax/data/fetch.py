"""Downloads that survive a bad line: a data set's name -> its official files, whole and verified.

    directory = fetch("mnist", "data")                              # from the official sites
    directory = fetch("cifar10", mirror="https://mirror.example/")  # the same files from elsewhere

A file arrives as NAME.part and is renamed to NAME only after its size and its official checksum
have been found right, so whatever bears a whole file's name is whole. An interrupted download goes
on where it stopped. Archives are unpacked beside their destination and moved there when complete.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from cnnjax import spec
from cnnjax.data.catalog import DATASETS
from cnnjax.data.dataset import DatasetCard, Download
from cnnjax.data.files import data_root, locate, read_bytes

CHUNK = 1 << 16
ATTEMPTS = 10
STALL_SECONDS = 30.0
LARGEST_UNPACKED = 1 << 30

# What a line can do to a download. Errors of the local disk are not among them: no retry mends one.
LINE_FAULTS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)

Report = Callable[[str, int, int], None]


class Unreached(OSError):
    """One address did not deliver the official file; another may."""


class Damaged(Unreached):
    """What an address offers is not the official file."""


def silent(name: str, done: int, total: int) -> None:
    """The report that says nothing."""


def fetch(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    mirror: str | None = None,
    timeout: float = STALL_SECONDS,
    report: Report = silent,
) -> Path:
    """Return the folder of a data set's official files, downloaded unless they are there already.

    mirror: address below which the official file names are found, instead of the official sites
        (else the environment variable CNNJAX_MIRROR). timeout: seconds without a byte after which
        a connection counts as stalled. report: called with (file name, bytes so far, bytes in all).

    Raises ValueError for a set that has nothing to download, OSError for everything else.
    """
    card, root = downloadable(name), data_root(data_dir)
    addresses = {item: urls_of(item, mirror) for item in card.downloads}
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout={timeout}: expected more than 0 seconds")
    if not is_whole(card, root):
        directory = root / card.folder
        directory.mkdir(parents=True, exist_ok=True)
        for item, urls in addresses.items():
            path = directory / item.name
            if not (path.is_file() and digest(path) == item.md5):
                download(item, path, urls, timeout=timeout, report=report)
            if item.name.endswith(".tar.gz"):
                unpack(path, directory, next(iter(card.layouts)))
                path.unlink()
    return verify(card, root)


def downloadable(name: str) -> DatasetCard:
    """Return the card of a set that an official site offers; others raise ValueError."""
    card = spec.find(DATASETS, name, "dataset")
    if card.downloads:
        return card
    offered = ", ".join(sorted(key for key, row in DATASETS.items() if row.downloads))
    reason = "it needs no files" if card.embedded else "no official site offers it"
    raise ValueError(f"dataset {name}: no official files, {reason}; choose from {offered}")


def urls_of(item: Download, mirror: str | None) -> tuple[str, ...]:
    """Return the addresses to try: the mirror's alone where there is one, else the official."""
    mirror = mirror or os.environ.get("CNNJAX_MIRROR")
    if not mirror:
        return item.urls
    if urllib.parse.urlsplit(mirror).scheme not in ("http", "https"):
        raise ValueError(f"mirror={mirror!r}: expected an address that begins with http(s)://")
    return (f"{mirror.rstrip('/')}/{item.name}",)


def verify(card: DatasetCard, root: Path) -> Path:
    """Return the folder of a set's official files; OSError names the first wrong or missing one."""
    folder, files = locate(card, root)
    for file in files:
        read_bytes(folder, file, verify=True)
    return folder


def is_whole(card: DatasetCard, root: Path) -> bool:
    """Say whether the official files are all there already."""
    try:
        verify(card, root)
    except OSError:
        return False
    return True


def download(
    item: Download, path: Path, urls: Iterable[str], *, timeout: float, report: Report = silent
) -> None:
    """Bring one file to `path`, from the first address that delivers the official bytes.

    Raises OSError that says of every address what was wrong, and how much the .part file keeps.
    """
    failures = []
    for url in urls:
        try:
            return download_from(url, item, path, timeout=timeout, report=report)
        except Unreached as error:
            failures.append(str(error))
    kept = size_of(part_of(path))
    if kept:
        failures.append(
            f"{kept:,} of {item.size:,} bytes are kept, run the same command again to go on"
        )
    raise OSError("; ".join(failures))


def download_from(url: str, item: Download, path: Path, *, timeout: float, report: Report) -> None:
    """Bring one file from one address, resuming as long as every attempt brings something."""
    part = part_of(path)
    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        before = size_of(part)
        try:
            receive(url, item, part, timeout=timeout, report=report)
        except LINE_FAULTS as error:
            failure = error
            if size_of(part) <= before:
                break
            continue
        if finish(item, part, path):
            return
        failure = Damaged(f"its bytes are not those of the official file (MD5 {item.md5})")
        # Bytes kept from before may be what is wrong: only a copy in one piece tells.
        if before == 0:
            break
    raise Unreached(f"{url}: {explain(failure, timeout)}") from failure


def receive(url: str, item: Download, part: Path, *, timeout: float, report: Report) -> None:
    """Append to `part` until it has all of its bytes; what the line does wrong is raised."""
    start = size_of(part)
    if start > item.size:
        part.unlink()
        start = 0
    if start == item.size:
        return
    with ask(url, start, timeout=timeout) as answer:
        start = resumed_at(answer, start)
        check_promise(url, answer, item, start)
        with part.open("ab" if start else "wb") as sink:
            # read1 hands over what has come so far; read would lose it when the line stalls.
            while start < item.size and (chunk := answer.read1(CHUNK)):
                sink.write(chunk[: item.size - start])
                start += len(chunk)
                report(item.name, min(start, item.size), item.size)
            sink.flush()
            os.fsync(sink.fileno())
    if start < item.size:
        raise ConnectionError(f"the connection closed after {start:,} of {item.size:,} bytes")


def ask(url: str, start: int, *, timeout: float) -> http.client.HTTPResponse:
    """Request the bytes of `url` from `start` on; a refusal is a ConnectionError."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            message = f"the server answers {error.code} {error.reason}"
        raise ConnectionError(message) from None


def resumed_at(answer: http.client.HTTPResponse, asked: int) -> int:
    """Return the place from which the server sends: what was asked for, or 0 if it ignored that."""
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        sent = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if sent == str(asked):
            return asked
        raise ConnectionError(f"asked for the bytes from {asked}, was offered {sent or 'none'}")
    return 0


def check_promise(url: str, answer: http.client.HTTPResponse, item: Download, start: int) -> None:
    """Raise Damaged, before a byte is kept, if the server announces a file of another size."""
    promised = answer.headers.get("Content-Length")
    if promised is not None and promised.isdigit() and start + int(promised) != item.size:
        raise Damaged(
            f"{url}: offers {start + int(promised):,} bytes, the official file has {item.size:,}"
        )


def finish(item: Download, part: Path, path: Path) -> bool:
    """Give a whole file its name; remove what has another checksum. Say which it was."""
    if digest(part) != item.md5:
        part.unlink()
        return False
    os.replace(part, path)
    return True


def explain(failure: Exception | None, timeout: float) -> str:
    """Say in words what the line did."""
    reason = getattr(failure, "reason", failure)
    if isinstance(reason, TimeoutError):
        return f"no byte for {timeout:g} s"
    return str(reason) or type(reason).__name__


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def digest(path: Path) -> str:
    """Return the MD5 sum of a file in hexadecimal."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, directory: Path, folder: str) -> None:
    """Put `folder` of a .tar.gz archive into `directory`, whole or not at all.

    Raises OSError if the archive is damaged, lacks the folder, or has a member that is no plain
    file or folder, or would land elsewhere.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix=".unpacking-") as scratch:
        try:
            with gzip.open(archive) as stream, tarfile.open(fileobj=stream) as source:
                extract(source, archive, Path(scratch))
                # A tar ends before its gzip stream does, and the checksum comes last.
                while stream.read(CHUNK):
                    pass
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OSError(f"{archive}: not a whole archive ({error})") from error
        if not (Path(scratch) / folder).is_dir():
            raise OSError(f"{archive}: holds no folder {folder}")
        target = directory / folder
        if target.exists():
            target.rename(Path(scratch) / f"{folder}.replaced")
        (Path(scratch) / folder).rename(target)


def extract(source: tarfile.TarFile, archive: Path, scratch: Path) -> None:
    """Write the members below `scratch`; a member that is not harmless raises OSError."""
    written = 0
    for member in source:
        place = PurePosixPath(member.name)
        harmless = (member.isfile() or member.isdir()) and not place.is_absolute()
        if not harmless or ".." in place.parts or "\\" in member.name:
            raise OSError(f"{archive}: refused, member {member.name!r} is a link or lies elsewhere")
        written += member.size
        if written > LARGEST_UNPACKED:
            raise OSError(f"{archive}: refused, unpacks to more than {LARGEST_UNPACKED:,} bytes")
        if content := source.extractfile(member):
            path = scratch / place
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as sink:
                shutil.copyfileobj(content, sink)

"""Downloads from a server on this machine that cuts, truncates, corrupts, stalls and lies."""

from __future__ import annotations

import dataclasses
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import DATASETS, DatasetCard, Download, File, cifar, fetch, load

CONTENT = np.random.RandomState(0).bytes(300_000)
ITEM = Download("thing.bin", len(CONTENT), cifar.md5(CONTENT), ())
SHORT = 0.3

Reply = Callable[["Handler", bytes], None]


class Server(ThreadingHTTPServer):
    """Serves `files`; `script` holds the replies to come, honest ones follow."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"thing.bin": CONTENT}
        self.script: list[Reply] = []
        self.asked: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/pub/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.asked.append((name, self.headers["Range"]))
        reply = self.server.script.pop(0) if self.server.script else honest
        reply(self, self.server.files.get(name, b""))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def start(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()

    def offset(self) -> int:
        return int((self.headers["Range"] or "bytes=0-")[6:-1])


def send(handler: Handler, content: bytes, *, sent: int | None = None) -> None:
    """Answer a range request rightly, but send only the first `sent` bytes."""
    offset = handler.offset()
    extra = {"Content_Range": f"bytes {offset}-{len(content) - 1}/{len(content)}"} if offset else {}
    handler.start(206 if offset else 200, Content_Length=len(content) - offset, **extra)
    handler.wfile.write(content[offset:][:sent])


def honest(handler: Handler, content: bytes) -> None:
    if content:
        send(handler, content)
    else:
        handler.send_error(404)


def cut(sent: int) -> Reply:
    return lambda handler, content: send(handler, content, sent=sent)


def stall(sent: int) -> Reply:
    def reply(handler: Handler, content: bytes) -> None:
        send(handler, content, sent=sent)
        handler.server.released.wait(20)

    return reply


def ignore_range(handler: Handler, content: bytes) -> None:
    handler.start(200, Content_Length=len(content))
    handler.wfile.write(content)


def corrupt(handler: Handler, content: bytes) -> None:
    send(handler, content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])


def truncate(handler: Handler, content: bytes) -> None:
    send(handler, content[:-1])


def silent_truncate(handler: Handler, content: bytes) -> None:
    handler.start(200)
    handler.wfile.write(content[:500])


def too_long(handler: Handler, content: bytes) -> None:
    handler.start(200)
    handler.wfile.write(content + b"more")


def wrong_range(handler: Handler, content: bytes) -> None:
    handler.start(206, Content_Length=len(content), Content_Range="bytes 0-9/10")
    handler.wfile.write(content)


def refuse(handler: Handler, content: bytes) -> None:
    handler.send_error(503)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join(10)


def get(server: Server, folder: Path, *, timeout: float = 10.0, urls: int = 1) -> bytes:
    path = folder / "thing.bin"
    fetch.download(ITEM, path, [f"{server.address}thing.bin"] * urls, timeout=timeout)
    assert [p.name for p in folder.iterdir()] == ["thing.bin"]
    return path.read_bytes()


def test_whole_file_with_report(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    fetch.download(
        ITEM,
        tmp_path / "thing.bin",
        [f"{server.address}thing.bin"],
        timeout=10,
        report=lambda *words: seen.append(words),
    )
    assert (tmp_path / "thing.bin").read_bytes() == CONTENT
    assert seen[-1] == ("thing.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})
    assert server.asked == [("thing.bin", None)]


def test_cut_lines_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.script = [cut(100_000), cut(50_001)]
    assert get(server, tmp_path) == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150001-"]


def test_next_run_takes_up_what_the_last_one_left(server: Server, tmp_path: Path) -> None:
    server.script = [cut(70_000), refuse]
    with pytest.raises(OSError, match=r"503 .*; 70,000 of 300,000 bytes are kept, run the same"):
        get(server, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thing.bin.part"]
    assert (tmp_path / "thing.bin.part").read_bytes() == CONTENT[:70_000]
    assert get(server, tmp_path) == CONTENT
    assert server.asked[-1] == ("thing.bin", "bytes=70000-")


def test_server_that_ignores_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.script = [cut(70_000), ignore_range]
    assert get(server, tmp_path) == CONTENT


def test_server_that_sends_another_range_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.script = [cut(70_000), wrong_range]
    with pytest.raises(OSError, match="asked for the bytes from 70000, was offered 0"):
        get(server, tmp_path)
    assert (tmp_path / "thing.bin.part").read_bytes() == CONTENT[:70_000]


def test_stall_is_noticed_in_time_and_resumed(server: Server, tmp_path: Path) -> None:
    server.script = [stall(120_000)]
    started = time.monotonic()
    assert get(server, tmp_path, timeout=SHORT) == CONTENT
    assert time.monotonic() - started < 10
    assert server.asked[-1] == ("thing.bin", "bytes=120000-")


def test_stall_without_a_byte_is_an_error(server: Server, tmp_path: Path) -> None:
    server.script = [stall(0)]
    with pytest.raises(OSError, match=r"no byte for 0\.3 s"):
        get(server, tmp_path, timeout=SHORT)
    assert not (tmp_path / "thing.bin").exists()


def test_corruption_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.script = [corrupt]
    with pytest.raises(OSError, match=f"its bytes are not those of .* {ITEM.md5}") as raised:
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "\n" not in str(raised.value)


def test_corrupt_bytes_from_an_earlier_run_are_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "thing.bin.part").write_bytes(bytes(1000))
    assert get(server, tmp_path) == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_full_but_wrong_part_is_fetched_anew(size: int, server: Server, tmp_path: Path) -> None:
    (tmp_path / "thing.bin.part").write_bytes(bytes(size))
    assert get(server, tmp_path) == CONTENT
    assert server.asked == [("thing.bin", None)]


def test_full_and_right_part_needs_no_server(server: Server, tmp_path: Path) -> None:
    (tmp_path / "thing.bin.part").write_bytes(CONTENT)
    assert get(server, tmp_path) == CONTENT
    assert server.asked == []


def test_file_of_another_size_is_refused_before_a_byte(server: Server, tmp_path: Path) -> None:
    server.script = [truncate]
    with pytest.raises(OSError, match="offers 299,999 bytes, the official file has 300,000"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_short_file_without_a_length_is_no_whole_file(server: Server, tmp_path: Path) -> None:
    server.script = [silent_truncate, refuse]
    with pytest.raises(OSError, match="503"):
        get(server, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thing.bin.part"]


def test_long_file_without_a_length_is_cut_to_size(server: Server, tmp_path: Path) -> None:
    server.script = [too_long]
    assert get(server, tmp_path) == CONTENT


def test_next_address_is_tried(server: Server, tmp_path: Path) -> None:
    server.script = [corrupt, truncate, refuse]
    assert get(server, tmp_path, urls=4) == CONTENT


def test_every_address_is_named_when_none_delivers(server: Server, tmp_path: Path) -> None:
    server.script = [corrupt, refuse]
    with pytest.raises(OSError, match=r"its bytes .*; http://.*503") as raised:
        get(server, tmp_path, urls=2)
    assert "kept" not in str(raised.value)


def test_endless_cuts_come_to_an_end(server: Server, tmp_path: Path) -> None:
    server.script = [cut(10)] * 1000
    with pytest.raises(OSError, match="bytes are kept"):
        get(server, tmp_path)
    assert len(server.asked) == fetch.ATTEMPTS


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as closed:
        address = closed.address
    with pytest.raises(OSError, match=r"thing\.bin: .*refused"):
        fetch.download(ITEM, tmp_path / "thing.bin", [f"{address}thing.bin"], timeout=5)


def test_full_disk_is_no_fault_of_the_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        get(server, tmp_path)
    assert len(server.asked) == 1
    assert not (tmp_path / "thing.bin").exists()


@pytest.fixture
def mnist_offered(small_mnist: DatasetCard, server: Server, tmp_path: Path) -> Server:
    """The server offers the four files of the small MNIST."""
    for item in small_mnist.downloads:
        server.files[item.name] = (tmp_path / "mnist" / item.name).read_bytes()
    return server


def test_fetch_then_load(mnist_offered: Server, tmp_path: Path) -> None:
    expected = load("mnist", tmp_path).checksum
    target = tmp_path / "new" / "place"
    folder = fetch.fetch("mnist", target, mirror=mnist_offered.address)
    assert folder == target / "mnist"
    assert load("mnist", target).checksum == expected
    assert len(mnist_offered.asked) == 4
    fetch.fetch("mnist", target, mirror=mnist_offered.address)
    assert len(mnist_offered.asked) == 4


def test_fetch_mends_what_is_damaged_and_keeps_the_rest(
    mnist_offered: Server, tmp_path: Path
) -> None:
    victim = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-9])
    fetch.fetch("mnist", tmp_path, mirror=mnist_offered.address.rstrip("/"))
    assert [name for name, _ in mnist_offered.asked] == [victim.name]
    assert victim.read_bytes() == whole


def test_mirror_from_the_environment_and_never_the_official_site(
    mnist_offered: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNJAX_MIRROR", mnist_offered.address)
    mnist_offered.script = [refuse]
    with pytest.raises(OSError, match="503") as raised:
        fetch.fetch("mnist", tmp_path / "new")
    assert str(raised.value).count("http://") == 1
    with pytest.raises(FileNotFoundError):
        load("mnist", tmp_path / "new")


def test_official_addresses_are_the_default(
    mnist_offered: Server,
    small_mnist: DatasetCard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CNNJAX_MIRROR", raising=False)
    official = tuple(
        item._replace(urls=(f"{mnist_offered.address}{item.name}",))
        for item in small_mnist.downloads
    )
    monkeypatch.setitem(DATASETS, "mnist", dataclasses.replace(small_mnist, downloads=official))
    fetch.fetch("mnist", tmp_path / "new")
    assert len(mnist_offered.asked) == 4


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {}, "dataset digits: no official files, it needs no files; choose from cifar10"),
        ("cifar10_jpeg", {}, "no official site offers it"),
        ("mnits", {}, "did you mean mnist"),
        ("mnist", {"mirror": "ftp://x"}, r"mirror='ftp://x': expected an address"),
        ("mnist", {"mirror": "/some/folder"}, "mirror='/some/folder'"),
        ("mnist", {"timeout": 0}, "timeout=0: expected more than 0"),
        ("mnist", {"timeout": float("nan")}, "timeout=nan"),
    ],
)
def test_bad_requests(name: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fetch.fetch(name, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def archive_of(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                archive.addfile(content)
    return sink.getvalue()


def special(kind: bytes, name: str, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_cifar10_from_its_archive(
    server: Server,
    write_cifar10: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_cifar10("source")
    batches = {path.name: path.read_bytes() for path in source.iterdir()}
    layout = "cifar-10-batches-bin"
    packed = archive_of(
        {layout: special(tarfile.DIRTYPE, layout)}
        | {f"{layout}/{name}": content for name, content in batches.items()}
    )
    server.files["cifar-10-binary.tar.gz"] = packed
    item = Download("cifar-10-binary.tar.gz", len(packed), cifar.md5(packed), ())
    files = tuple(File(f"{n}.bin", md5=cifar.md5(batches[f"{n}.bin"])) for n in cifar.BATCHES)
    card = dataclasses.replace(DATASETS["cifar10"], downloads=(item,), layouts={layout: files})
    monkeypatch.setitem(DATASETS, "cifar10", card)
    stale = tmp_path / "data" / "cifar10" / layout
    stale.mkdir(parents=True)
    (stale / "data_batch_1.bin").write_bytes(b"half")
    server.script = [cut(1000)]
    fetch.fetch("cifar10", tmp_path / "data", mirror=server.address)
    assert [p.name for p in (tmp_path / "data" / "cifar10").iterdir()] == [layout]
    assert load("cifar10", tmp_path / "data").checksum == (
        load("cifar10:verify=false", source).checksum
    )


MALICIOUS = {
    "absolute": {"box/fine": b"1", "/cnnjax-escaped": b"2"},
    "parent": {"box/fine": b"1", "box/../../escaped": b"2"},
    "backslash": {"box/fine": b"1", "..\\escaped": b"2"},
    "symlink": {"box/fine": b"1", "box/l": special(tarfile.SYMTYPE, "box/l", "/etc/passwd")},
    "hard link": {"box/fine": b"1", "box/l": special(tarfile.LNKTYPE, "box/l", "box/fine")},
    "device": {"box/fine": b"1", "box/d": special(tarfile.CHRTYPE, "box/d")},
    "pipe": {"box/fine": b"1", "box/p": special(tarfile.FIFOTYPE, "box/p")},
}


@pytest.mark.parametrize("case", MALICIOUS)
def test_malicious_archives_leave_nothing(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(archive_of(MALICIOUS[case]))
    with pytest.raises(OSError, match=r"a\.tar\.gz: refused, member"):
        fetch.unpack(archive, folder, "box")
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "data"]


def test_archive_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LARGEST_UNPACKED", 1000)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(archive_of({"box/zeros": bytes(600), "box/more": bytes(600)}))
    with pytest.raises(OSError, match="unpacks to more than 1,000 bytes"):
        fetch.unpack(archive, tmp_path, "box")
    assert list(tmp_path.iterdir()) == [archive]


def test_damaged_archives(tmp_path: Path) -> None:
    whole = archive_of({"box/noise": CONTENT})
    archive = tmp_path / "a.tar.gz"
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for content in (b"", b"junk", whole[:-1000], bytes(damaged)):
        archive.write_bytes(content)
        with pytest.raises(OSError, match=r"a\.tar\.gz: not a whole archive"):
            fetch.unpack(archive, tmp_path, "box")
        assert list(tmp_path.iterdir()) == [archive]
    archive.write_bytes(whole)
    with pytest.raises(OSError, match="holds no folder other"):
        fetch.unpack(archive, tmp_path, "other")

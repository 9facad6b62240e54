"""Small files in the official layouts, and cards whose official checksums are those files' own."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import DATASETS, DatasetCard, Download, File
from cnnjax.data.mnist import NAMES


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_arrays(*, train: int = 40, test: int = 20) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    counts = (train, train, test, test)
    return [
        random.randint(0, 256, (n, 28, 28)) if i % 2 == 0 else np.arange(n) % 10
        for i, n in enumerate(counts)
    ]


def record_bytes(labels: np.ndarray, planes: np.ndarray) -> bytes:
    return np.column_stack([labels, planes]).astype(np.uint8).tobytes()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def mnist_files(tmp_path: Path) -> dict[str, bytes]:
    """Four small idx files, gzipped in tmp_path/mnist; returns the uncompressed bytes."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    contents = dict(zip(NAMES, map(idx_bytes, mnist_arrays()), strict=True))
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
    return contents


@pytest.fixture
def small_mnist(
    mnist_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DatasetCard:
    """The row `mnist`, its official sums being those of `mnist_files`."""
    files = tuple(File(name, len(raw), md5(raw)) for name, raw in mnist_files.items())
    downloads = []
    for name in mnist_files:
        packed = (tmp_path / "mnist" / f"{name}.gz").read_bytes()
        urls = (f"http://127.0.0.1:9/{name}.gz",)
        downloads.append(Download(f"{name}.gz", len(packed), md5(packed), urls))
    card = dataclasses.replace(
        DATASETS["mnist"], layouts={"raw": files}, downloads=tuple(downloads)
    )
    monkeypatch.setitem(DATASETS, "mnist", card)
    return card


@pytest.fixture
def write_cifar10(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes six small binary batches and returns their folder."""

    def write(folder: str = "cifar10/cifar-10-batches-bin", *, count: int = 12) -> Path:
        target = tmp_path / folder
        target.mkdir(parents=True)
        random = np.random.RandomState(1)
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            labels = random.permutation(np.arange(count) % 10)
            planes = random.randint(0, 256, (count, 3072))
            (target / name).write_bytes(record_bytes(labels, planes))
        return target

    return write

"""CIFAR-10 and CIFAR-100, binary or pickled: directory -> Content, 32x32 colour pictures.

The binary layout is a run of records: one label byte (CIFAR-100: coarse, then fine), then 1,024
red, 1,024 green and 1,024 blue bytes, row by row (A. Krizhevsky, "Learning Multiple Layers of
Features from Tiny Images", 2009). The pickled layout holds the same bytes and is read by
`pickled.loads` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import pickled
from cnnjax.data.dataset import Content, DatasetCard, Download, File, Split
from cnnjax.data.files import locate, md5, read_bytes

SITE = "https://www.cs.toronto.edu/~kriz/"
PLANES = (3, 32, 32)
PIXELS = 3 * 32 * 32
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")

CIFAR10_LAYOUTS = {
    "cifar-10-batches-bin": tuple(
        File(f"{batch}.bin", 30_730_000, md5)
        for batch, md5 in zip(
            BATCHES,
            (
                "5dd7e06a14cb22eb9f671a540d1b7c25",
                "5ea93a67294ea407fff1d09f752e9692",
                "942cd6a4bcdd0dd3c604fbe906cb4421",
                "ae636b3ba5c66a11e91e8cb52e771fcb",
                "53f37980c15c3d472c316c40844f3f0d",
                "803d5f7f4d78ea53de84dbe85f74fb6d",
            ),
            strict=True,
        )
    ),
    "cifar-10-batches-py": tuple(
        File(batch, md5=md5)
        for batch, md5 in zip(
            BATCHES,
            (
                "c99cafc152244af753f735de768cd75f",
                "d4bba439e000b95fd0a9bffe97cbabec",
                "54ebc095f3ab1f0389bbae665268c751",
                "634d18415352ddfa80567beed471001a",
                "482c414d41f54cd18b22e5b47cb7c3cb",
                "40351d587109b95175f43aff81a1287e",
            ),
            strict=True,
        )
    ),
}
CIFAR100_LAYOUTS = {
    "cifar-100-binary": (
        File("train.bin", 153_700_000, "6172c7755cfe09b2fe270c85cebc1b15"),
        File("test.bin", 30_740_000, "4499cfba6c016c1be1438163640a0898"),
    ),
    "cifar-100-python": (
        File("train", md5="16019d7e3df5f24257cddd939b257f8d"),
        File("test", md5="f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
}
# The binary archives alone are fetched: the same pictures, and nothing to unpickle.
CIFAR10_DOWNLOADS = (
    Download(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c32a1d4ab5d03f1284b67883e8d87530",
        (f"{SITE}cifar-10-binary.tar.gz",),
    ),
)
CIFAR100_DOWNLOADS = (
    Download(
        "cifar-100-binary.tar.gz",
        168_513_733,
        "03b5dce01913d631647c71ecec9e9cb8",
        (f"{SITE}cifar-100-binary.tar.gz",),
    ),
)
# The same records under the same names, but the checksums are nobody's: a JPEG round trip.
JPEG_LAYOUTS = {
    "cifar-10-batches-bin": tuple(File(f"{batch}.bin", 30_730_000) for batch in BATCHES)
}


def read(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Read the official files, of either layout; the last file of a layout is the test split."""
    directory, files = locate(card, root)
    batches = [
        batch_of(read_bytes(directory, file, verify=params["verify"]), directory / file.name, card)
        for file in files
    ]
    return Content(join(batches[:-1]), batches[-1])


def read_jpeg(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Read re-compressed pictures in the binary layout; refuse the official ones."""
    del params
    directory, files = locate(card, root)
    official = {file.md5 for file in CIFAR10_LAYOUTS["cifar-10-batches-bin"]}
    batches = []
    for file in files:
        raw = read_bytes(directory, file, verify=False)
        if md5(raw) in official:
            raise OSError(f"{directory / file.name}: the official CIFAR-10; load it as cifar10")
        batches.append(batch_of(raw, directory / file.name, card))
    return Content(join(batches[:-1]), batches[-1])


def batch_of(raw: bytes, path: Path, card: DatasetCard) -> Split:
    """Return the pictures and labels of one file, binary if its name says so, else pickled."""
    coarse_and_fine = len(card.classes) > 10
    planes, labels = (
        records(raw, path, 2 if coarse_and_fine else 1)
        if path.suffix == ".bin"
        else unpickled(raw, path, "fine_labels" if coarse_and_fine else "labels")
    )
    if labels.min() < 0 or labels.max() >= len(card.classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise OSError(f"{path}: label {wrong}, expected 0 to {len(card.classes) - 1}")
    images = np.ascontiguousarray(planes.reshape(-1, *PLANES).transpose(0, 2, 3, 1))
    return Split(images, labels.astype(np.int32))


def records(raw: bytes, path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Split binary records into pixels (N, 3072) and the last of the label bytes (N,)."""
    length = label_bytes + PIXELS
    if not raw or len(raw) % length:
        raise OSError(f"{path}: {len(raw)} bytes, not a whole number of {length}-byte records")
    table = np.frombuffer(raw, np.uint8).reshape(-1, length)
    return table[:, label_bytes:], table[:, label_bytes - 1]


def unpickled(raw: bytes, path: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N, 3072) and labels (N,) of a pickled batch."""
    content = pickled.loads(raw, str(path))
    if not {"data", key} <= content.keys():
        raise OSError(f"{path}: holds {', '.join(content)}; expected data and {key}")
    pixels, labels = content["data"], content[key]
    if not isinstance(pixels, np.ndarray) or pixels.shape[1:] != (PIXELS,) or not len(pixels):
        found = getattr(pixels, "shape", type(pixels).__name__)
        raise OSError(f"{path}: data is {found}, expected bytes of shape (N, {PIXELS})")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise OSError(f"{path}: {key} is not a list of integers")
    if len(labels) != len(pixels):
        raise OSError(f"{path}: {len(labels)} labels for {len(pixels)} images")
    return pixels, np.array(labels)


def join(batches: list[Split]) -> Split:
    """Put batches one after another."""
    return Split(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))

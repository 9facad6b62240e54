"""What a data set is: pictures and labels in two splits, and the card that says how to get them.

A `DatasetCard` is a row of the table `DATASETS`; its `read` turns files (or nothing, for embedded
and synthetic sets) into a `Content`; `load` wraps that in a `Dataset`.

    dataset = cnnjax.data.load("mnist:train=1000")
    dataset.train.images        # (1000, 28, 28, 1) uint8
    dataset.mean, dataset.std   # per channel, of train.images / 255
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

Boundary = Literal["zeros", "circular"]
CHUNK = 1024  # pictures that are looked at together, as they may lie on disk


class Split(NamedTuple):
    """Pictures (N, H, W, C) uint8 in 0..255 and labels (N,) int32 in 0..num_classes - 1.

    `images` may be what is read from disk as it is indexed (`folder.OnDisk`).
    """

    images: np.ndarray
    labels: np.ndarray


class Content(NamedTuple):
    """What a reader returns; None means "as the card says".

    `truth` holds, for synthetic sets, what every picture was drawn from: split -> quantity -> (N,
    ...) array. `validation` are pictures that are in neither of the other splits; `sources`, for
    pictures out of files, split -> the name of each.
    """

    train: Split
    test: Split
    classes: tuple[str, ...] | None = None
    slack: int | None = None
    truth: Mapping[str, Mapping[str, np.ndarray]] = {}
    validation: Split | None = None
    sources: Mapping[str, tuple[str, ...]] = {}


class File(NamedTuple):
    """A file as its reader wants it, uncompressed; `size` in bytes, 0 where unknown.

    `md5` is the official sum of the uncompressed bytes. Where only the sum of the distributed .gz
    file is published, `md5` is empty and `gz_md5` holds that.
    """

    name: str
    size: int = 0
    md5: str = ""
    gz_md5: str = ""


class Download(NamedTuple):
    """A file as its official site offers it; `urls` are full addresses, tried in turn."""

    name: str
    size: int
    md5: str
    urls: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """A row of `DATASETS`: what the set is, where its files come from, how they are read.

    boundary: what a shift should bring in at the border ("zeros" where the background is black).
    slack: pixels by which every picture may move in each direction without losing content.
    standardize: whether networks expect (x / 255 - mean) / std; otherwise x / 255.
    layouts: alternative groups of files, each with its folder name in the official archive; the
        first group that is present is read. The first one is what `downloads` delivers.
    folder: subdirectory of the data directory. params: own spec parameters and their defaults.
    epochs: how long a study trains on the set unless told otherwise.
    """

    name: str
    summary: str
    citation: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    read: Callable[[DatasetCard, Path, Mapping[str, Any]], Content]
    embedded: bool = False
    boundary: Boundary = "zeros"
    slack: int = 0
    standardize: bool = False
    folder: str = ""
    layouts: Mapping[str, tuple[File, ...]] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 10

    @property
    def files(self) -> tuple[File, ...]:
        """The official files of every layout."""
        return tuple(file for files in self.layouts.values() for file in files)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """A loaded data set; its arrays are read-only.

    `spec` is the canonical text that loads the same set again; `slack`, `truth`, `validation` and
    `sources` as on `Content`; `fit` says how a picture of another size is fitted (`picture.Frame`).
    Raises TypeError or ValueError where pictures or labels are not what `Split` says.
    """

    name: str
    spec: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    standardize: bool
    boundary: Boundary
    slack: int
    truth: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    validation: Split | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fit: str = "crop"

    def __post_init__(self) -> None:
        shape = self.train.images.shape[1:]
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        for name, split in splits.items():
            if split is None:
                continue
            check_split(f"dataset {self.name}: {name}", split, self.num_classes)
            if split.images.shape[1:] != shape:
                raise ValueError(
                    f"dataset {self.name}: {name}.images: expected (N, H, W, C) with H, W, C = "
                    f"{shape} as in train, got {split.images.shape}"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over shapes and bytes of all arrays, in the order train, test, validation."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test, *(self.validation or ())):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            for start in range(0, len(array), CHUNK):
                digest.update(np.ascontiguousarray(array[start : start + CHUNK]).data)
        return digest.hexdigest()

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of train.images / 255."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of train.images / 255; divided by the number of pixels, not one less."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return channel_moments(self.train.images)


def check_split(where: str, split: Split, classes: int) -> None:
    """Raise TypeError or ValueError unless these are pictures and their labels below `classes`."""
    images, labels = split
    if images.dtype != np.uint8:
        raise TypeError(f"{where}.images: expected uint8, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{where}.images: expected (N, H, W, C), none of them 0, got {images.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{where}.labels: expected integers, got {labels.dtype}")
    if labels.shape != (len(images),):
        raise ValueError(f"{where}.labels: expected ({len(images)},), got {labels.shape}")
    out = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(out):
        raise ValueError(
            f"{where}.labels[{out[0]}]: expected 0 to {classes - 1}, got {labels[out[0]]}"
        )


def channel_moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of `images` / 255 for each channel.

    images (N, H, W, C) uint8. The sums are integers, so the result does not depend on the order of
    summation, the machine or the number of threads.
    """
    channels = images.shape[-1]
    total, squares = [0] * channels, [0] * channels
    for start in range(0, len(images), CHUNK):
        block = images[start : start + CHUNK]
        for channel in range(channels):
            values = block[..., channel].astype(np.uint32)
            total[channel] += int(values.sum(dtype=np.uint64))
            squares[channel] += int((values * values).sum(dtype=np.uint64))
    pixels = math.prod(images.shape[:-1])
    means = tuple(s / (255 * pixels) for s in total)
    stds = tuple(
        math.sqrt(pixels * q - s * s) / (255 * pixels) for s, q in zip(total, squares, strict=True)
    )
    return means, stds

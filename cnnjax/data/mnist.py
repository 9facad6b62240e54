"""MNIST and the sets that share its four idx files: directory -> Content.

content = read(DATASETS["mnist"], root, {"verify": True})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnnjax.data import canvas, idx
from cnnjax.data.dataset import Content, DatasetCard, Download, File, Split
from cnnjax.data.files import locate, read_bytes

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
PICTURE = (28, 28)
SIZES = (47_040_016, 60_008, 7_840_016, 10_008)
MNIST_MD5 = (
    "6bbc9ace898e44ae57da46a324031adb",
    "a25bea736e30d166cdddb491f175f624",
    "2646ac647ad5339dbf082846283269ea",
    "27ae3e4e09519cfbb04c329615203637",
)
MNIST_GZ = (
    (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    (28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
    (1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
    (4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
)
FASHION_GZ = (
    (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    (29_515, "25c81989df183df01b3e8a0aad5dffbe"),
    (4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
    (5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
)
MNIST_SITES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
FASHION_SITES = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)

MNIST_FILES = tuple(map(File, NAMES, SIZES, MNIST_MD5))
FASHION_FILES = tuple(
    File(name, size, gz_md5=md5)
    for name, size, (_, md5) in zip(NAMES, SIZES, FASHION_GZ, strict=True)
)


def downloads(offers: tuple[tuple[int, str], ...], sites: tuple[str, ...]) -> tuple[Download, ...]:
    """Return the four .gz files as the sites offer them."""
    return tuple(
        Download(f"{name}.gz", size, md5, tuple(f"{site}{name}.gz" for site in sites))
        for name, (size, md5) in zip(NAMES, offers, strict=True)
    )


def read(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Read train and test, images (N, 28, 28, 1); errors as `files` and `idx` raise them."""
    directory, files = locate(card, root)
    verify = params["verify"]
    return Content(
        train=read_split(directory, files[:2], card, verify=verify),
        test=read_split(directory, files[2:], card, verify=verify),
    )


def read_on_canvas(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Read MNIST and put every picture in the middle of a black square of `side` pixels."""
    return canvas.centre(read(card, root, params), side=params["side"])


def read_split(
    directory: Path, pair: tuple[File, ...], card: DatasetCard, *, verify: bool
) -> Split:
    """Read one file of images and its file of labels."""
    pictures, answers = pair
    images = idx.parse(
        read_bytes(directory, pictures, verify=verify), str(directory / pictures.name), ndim=3
    )
    labels = idx.parse(
        read_bytes(directory, answers, verify=verify), str(directory / answers.name), ndim=1
    )
    if images.shape[1:] != PICTURE:
        raise OSError(
            f"{directory / pictures.name}: pictures are {images.shape[1:]}, expected {PICTURE}"
        )
    if len(images) != len(labels):
        raise OSError(
            f"{directory / answers.name}: {len(labels)} labels for the {len(images)} images of "
            f"{pictures.name}"
        )
    if labels.max() >= len(card.classes):
        raise OSError(
            f"{directory / answers.name}: label {labels.max()}, expected 0 to "
            f"{len(card.classes) - 1}"
        )
    return Split(images[..., None], labels.astype(np.int32))

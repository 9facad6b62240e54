"""The table of data sets, and the one way in: a spec -> a Dataset.

    load("digits_canvas")
    load("mnist:train=2000:test=500", data_dir="somewhere")
    load("shapes:size=48:n=2000")
    load("folder:path=DIR:size=64:validation_share=0.2")

Every set takes `train=N` and `test=N`, the first N pictures of a fixed stratified order, and
`validation=N`: pictures put aside out of the training split, in the same proportions (of a set that
has a validation split, its first N). Sets that are read from official files take `verify=false` to
accept other files of the same layout. Adding a set is one row here. Loading never touches the
network; `fetch` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax import spec
from cnnjax.data import cifar, digits, folder, mnist, shapes
from cnnjax.data.citations import CITATIONS
from cnnjax.data.classes import CIFAR10, CIFAR100, DIGITS, FASHION
from cnnjax.data.dataset import Content, Dataset, DatasetCard, Split
from cnnjax.data.files import data_root
from cnnjax.data.subset import subset_indices, take

VERIFY = {"verify": True}
VALIDATION_SEED = 1  # another order than that of train=N, whose beginning it would else take away
SPLITS = {"train": 1000, "test": 500, "validation": 500}  # what every set takes, with examples

_ROWS = (
    DatasetCard(
        name="digits",
        summary="handwritten digits of scikit-learn, 1,437 + 360 pictures",
        citation=CITATIONS["digits"],
        image_shape=(8, 8, 1),
        classes=DIGITS,
        embedded=True,
        epochs=20,
        read=digits.read,
    ),
    DatasetCard(
        name="digits_canvas",
        summary="the same digits, doubled, in the middle of a black canvas",
        citation=CITATIONS["digits"],
        image_shape=(36, 36, 1),
        classes=DIGITS,
        embedded=True,
        slack=10,
        params={"side": 36, "scale": 2},
        epochs=20,
        read=digits.read_on_canvas,
    ),
    DatasetCard(
        name="mnist",
        summary="handwritten digits, 60,000 + 10,000 pictures",
        citation=CITATIONS["mnist"],
        image_shape=(28, 28, 1),
        classes=DIGITS,
        folder="mnist",
        layouts={"raw": mnist.MNIST_FILES},
        downloads=mnist.downloads(mnist.MNIST_GZ, mnist.MNIST_SITES),
        params=VERIFY,
        epochs=3,
        read=mnist.read,
    ),
    DatasetCard(
        name="mnist_canvas",
        summary="MNIST in the middle of a larger black canvas",
        citation=CITATIONS["mnist"],
        image_shape=(48, 48, 1),
        classes=DIGITS,
        slack=10,
        folder="mnist",
        layouts={"raw": mnist.MNIST_FILES},
        downloads=mnist.downloads(mnist.MNIST_GZ, mnist.MNIST_SITES),
        params={"side": 48, **VERIFY},
        epochs=3,
        read=mnist.read_on_canvas,
    ),
    DatasetCard(
        name="fashion_mnist",
        summary="articles of clothing, 60,000 + 10,000 pictures",
        citation=CITATIONS["fashion_mnist"],
        image_shape=(28, 28, 1),
        classes=FASHION,
        folder="fashion_mnist",
        layouts={"raw": mnist.FASHION_FILES},
        downloads=mnist.downloads(mnist.FASHION_GZ, mnist.FASHION_SITES),
        params=VERIFY,
        epochs=3,
        read=mnist.read,
    ),
    DatasetCard(
        name="cifar10",
        summary="colour photographs of 10 kinds of things, 50,000 + 10,000 pictures",
        citation=CITATIONS["cifar"],
        image_shape=(32, 32, 3),
        classes=CIFAR10,
        boundary="circular",
        standardize=True,
        folder="cifar10",
        layouts=cifar.CIFAR10_LAYOUTS,
        downloads=cifar.CIFAR10_DOWNLOADS,
        params=VERIFY,
        read=cifar.read,
    ),
    DatasetCard(
        name="cifar10_jpeg",
        summary="CIFAR-10 after a JPEG round trip: close to, not equal to, CIFAR-10",
        citation=CITATIONS["cifar"],
        image_shape=(32, 32, 3),
        classes=CIFAR10,
        boundary="circular",
        standardize=True,
        folder="cifar10_jpeg",
        layouts=cifar.JPEG_LAYOUTS,
        read=cifar.read_jpeg,
    ),
    DatasetCard(
        name="cifar100",
        summary="colour photographs of 100 kinds of things (fine labels), 50,000 + 10,000",
        citation=CITATIONS["cifar"],
        image_shape=(32, 32, 3),
        classes=CIFAR100,
        boundary="circular",
        standardize=True,
        folder="cifar100",
        layouts=cifar.CIFAR100_LAYOUTS,
        downloads=cifar.CIFAR100_DOWNLOADS,
        params=VERIFY,
        read=cifar.read,
    ),
    DatasetCard(
        name="shapes",
        summary="synthetic shapes of known position, size and colour, n + n // 4 pictures",
        citation="",
        image_shape=(32, 32, 3),
        classes=tuple(shapes.SHAPES),
        embedded=True,
        params={"size": 32, "n": 2000, "channels": 3, "seed": 0, "noise": 0.0, "classes": 8},
        read=shapes.read,
    ),
    DatasetCard(
        name="folder",
        summary="your own pictures: a directory with one sub-folder a class",
        citation="",
        image_shape=(32, 32, 3),
        classes=(),
        boundary="circular",
        standardize=True,
        params={
            "path": "",
            "size": 32,
            "channels": 3,
            "fit": "crop",
            "validation_share": 0.1,
            "test_share": 0.2,
            "seed": 0,
            "keep": "memory",
        },
        read=folder.read,
    ),
)

DATASETS: Mapping[str, DatasetCard] = {card.name: card for card in _ROWS}


def load(text: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Return the data set that a spec names, read from `data_dir` (see `files.data_root`).

    Raises ValueError or TypeError for a name or parameter that cannot be, FileNotFoundError where
    files are missing, and OSError naming the file where one is damaged or not the official one.
    """
    name, given = spec.parse(text)
    card = spec.find(DATASETS, name, "dataset")
    params = fill(card, given)
    content = card.read(card, data_root(data_dir), params)
    if "validation" in given and content.validation is None:
        content = set_aside(content, given["validation"])
    for split in [split for split in SPLITS if split in given]:
        content = limit(content, split, given[split])
    return Dataset(
        name=name,
        spec=spec.format(name, given),
        train=frozen(content.train),
        test=frozen(content.test),
        validation=None if content.validation is None else frozen(content.validation),
        classes=card.classes if content.classes is None else content.classes,
        standardize=card.standardize,
        boundary=card.boundary,
        slack=card.slack if content.slack is None else content.slack,
        truth=content.truth,
        sources=content.sources,
        fit=params.get("fit", "crop"),
    )


def fill(card: DatasetCard, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's parameters with the given ones put in, each of the type of its default."""
    examples = {**SPLITS, **card.params}
    for key, value in given.items():
        if key not in examples:
            known = spec.suggest(key, examples)
            raise ValueError(f"dataset {card.name}: unknown parameter {key!r}; {known}")
        expected = type(examples[key])
        if type(value) is not expected and (type(value), expected) != (int, float):
            example = spec.format(card.name, {key: examples[key]})
            raise ValueError(
                f"dataset {card.name}: {key}={value}: expected {expected.__name__}, as in {example}"
            )
    return {**card.params, **given}


def limit(content: Content, split: str, count: int) -> Content:
    """Return the content with one split, and what is known of it, cut down to `count` pictures."""
    whole: Split = getattr(content, split)
    return choose(content, {split: subset_indices(whole.labels, count, split)}, split)


def set_aside(content: Content, count: int) -> Content:
    """Return the content with `count` pictures of the training split as its validation split.

    Both are in the order of the source. Raises ValueError unless some are left for training.
    """
    labels = content.train.labels
    if count == len(labels):
        raise ValueError(f"validation={count}: expected less than {count}, the pictures there are")
    aside = subset_indices(labels, count, "validation", seed=VALIDATION_SEED)
    kept = np.setdiff1d(np.arange(len(labels)), aside)
    return choose(content, {"validation": np.sort(aside), "train": kept}, "train")


def choose(content: Content, indices: Mapping[str, np.ndarray], source: str) -> Content:
    """Return the content with the pictures at `indices` of the split `source` as other splits."""
    whole: Split = getattr(content, source)
    truth, sources = dict(content.truth), dict(content.sources)
    for split, chosen in indices.items():
        if source in content.truth:
            truth[split] = {key: values[chosen] for key, values in content.truth[source].items()}
        if source in content.sources:
            sources[split] = tuple(content.sources[source][i] for i in chosen)
    parts: dict[str, Any] = {split: take(whole, chosen) for split, chosen in indices.items()}
    return content._replace(**parts, truth=truth, sources=sources)


def frozen(split: Split) -> Split:
    """Return the split with arrays that cannot be written to: many trials may share them."""
    if not isinstance(split.images, np.ndarray):
        return split  # pictures on disk
    images, labels = map(np.ascontiguousarray, split)
    images.flags.writeable = labels.flags.writeable = False
    return Split(images, labels)

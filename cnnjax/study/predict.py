"""Judging pictures: a trained network and files -> a class with its probability for each.

for verdict in predict(load("runs/pets"), find(["holiday/", "cat.png"])):
    verdict.path, verdict.classes[0], verdict.probabilities[0]      # or verdict.reason
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnnjax.data import folder, picture
from cnnjax.data.picture import UnreadablePicture
from cnnjax.data.recipe import Recipe
from cnnjax.study.trained import Trained

BATCH = 64


class Verdict(NamedTuple):
    """The most probable classes of a picture, best first, each with its probability."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


class Skipped(NamedTuple):
    """A file that is no picture, and why."""

    path: Path
    reason: str


def find(words: Iterable[str]) -> list[Path]:
    """Return the files named, and the pictures below the directories named, each once.

    Links that lead out of a directory are left out with a warning, as in training; one that is
    named itself is followed. Raises FileNotFoundError for what does not exist, ValueError for a
    directory without pictures.
    """
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such picture or directory")
        inside = _below(path) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path}: no picture in it ({', '.join(picture.SUFFIXES)})")
        found |= dict.fromkeys(inside)
    return list(found)


def _below(directory: Path) -> list[Path]:
    inside, links = folder.within(directory, root=directory)
    folder.warn_of_links("predict", links, directory)
    return inside


def predict(
    trained: Trained, paths: Iterable[Path], *, top: int = 5, batch_size: int = BATCH
) -> Iterator[Verdict | Skipped]:
    """Yield a verdict or the reason for none for each path, in their order.

    Raises ValueError where the network takes no pictures (see `Recipe.read`).
    """
    with ThreadPoolExecutor() as threads:
        for part in _chunks(paths, batch_size):
            images = list(threads.map(lambda path: _attempt(trained.recipe, path), part))
            yield from _judged(trained, part, images, top, batch_size)


def _chunks(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    rest = iter(paths)
    while part := list(itertools.islice(rest, size)):
        yield part


def _attempt(recipe: Recipe, path: Path) -> np.ndarray | str:
    try:
        return recipe.read(path)
    except UnreadablePicture as error:
        return str(error)


def _judged(
    trained: Trained, paths: list[Path], images: list[np.ndarray | str], top: int, batch_size: int
) -> Iterator[Verdict | Skipped]:
    # One shape for every batch: the network is compiled once.
    batch = np.zeros((batch_size, *trained.recipe.image_shape), np.uint8)
    for row, image in enumerate(images):
        if not isinstance(image, str):
            batch[row] = image
    table = trained.probabilities(batch)
    for path, image, row in zip(paths, images, table, strict=False):
        if isinstance(image, str):
            yield Skipped(path, image)
            continue
        best = np.argsort(-row, kind="stable")[:top]
        names = tuple(trained.recipe.classes[i] for i in best)
        yield Verdict(path, names, tuple(float(row[i]) for i in best))

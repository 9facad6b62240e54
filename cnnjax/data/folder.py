"""Your own pictures: a directory with one sub-folder a class -> three splits of pictures.

    dataset = cnnjax.data.load("folder:path=DIR:size=32:fit=crop:channels=3")
    parts = split(find(DIR), validation=0.1, test=0.2, seed=0)      # names alone, nothing decoded
    source = Pictures(parts["train"], Frame(32))                    # random access
    source[7]                                                       # {"image": ..., "label": 3}
    split = cnnjax.data.load("folder:path=DIR:keep=disk").train     # read when it is indexed

DIR/<class>/**/*.jpg is divided by the seed; DIR/{train,validation,test}/<class>/** stays as it is
divided (`val` is validation too, and a part that is not there is taken from train). Which split a
picture falls into depends on its own name and the seed, so that one added later moves hardly any
other.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnjax.data import picture
from cnnjax.data.dataset import CHUNK, Content, DatasetCard, Split
from cnnjax.data.picture import Frame, UnreadablePicture

MOST_BYTES = 4 * 2**30
SHOWN = 3
PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}


class Found(NamedTuple):
    """The pictures of one split: class names, `names` relative to `root`, a label for each name."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Pictures:
    """Random access to pictures that stay on disk: `len(source)` and `source[i]`.

    An item is {"image": (size, size, channels) uint8, "label": int}; UnreadablePicture, naming the
    file, where it is not one.
    """

    found: Found
    frame: Frame

    def __len__(self) -> int:
        return len(self.found.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.found.root / self.found.names[index]
        return {"image": picture.read(path, self.frame), "label": self.found.labels[index]}


@dataclass(frozen=True)
class OnDisk:
    """Pictures as an array (N, size, size, channels) uint8 of which nothing is kept in memory.

    Indexed by a number, a slice or an array of numbers it reads the pictures.
    """

    source: Pictures
    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As an array's."""
        frame = self.source.frame
        return len(self.source), frame.size, frame.size, frame.channels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, int | np.integer):
            return self._one(int(index))
        rows = np.arange(len(self))[index]
        found = _in_threads(self._one, rows.tolist())
        return np.stack(found) if found else np.empty((0, *self.shape[1:]), np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # there is nothing that could be shared
        return self[:].astype(dtype or np.uint8, copy=False)

    def _one(self, index: int) -> np.ndarray:
        return self.source[index]["image"]


def read(card: DatasetCard, root: Path, params: Mapping[str, Any]) -> Content:
    """Decode all pictures into memory; those that cannot be read are left out with a warning.

    With keep=disk the training pictures stay where they are and are read when their turn comes.
    Raises FileNotFoundError without the directory; ValueError for parameters that cannot be, fewer
    than two classes, a class or a split without a picture, and more than MOST_BYTES in memory.
    """
    del card, root
    if params["keep"] not in ("memory", "disk"):
        raise ValueError(f"folder: keep={params['keep']}: expected memory or disk")
    frame = Frame(params["size"], params["channels"], params["fit"])
    if not params["path"]:
        raise ValueError(
            "folder: expected a directory, as in folder:DIR or folder:path=DIR:size=32"
        )
    parts = divide(Path(params["path"]).expanduser(), params)
    on_disk = ("train",) if params["keep"] == "disk" else ()
    check_size({name: found for name, found in parts.items() if name not in on_disk}, frame)
    skipped: list[UnreadablePicture] = []
    loaded = {
        name: (leave if name in on_disk else load)(Pictures(found, frame), skipped)
        for name, found in parts.items()
    }
    classes = parts["train"].classes
    for name, (split, _) in loaded.items():
        check_classes(name, split.labels, classes)
    warn(skipped, sum(len(found.names) for found in parts.values()))
    return Content(
        train=loaded["train"][0],
        test=loaded["test"][0],
        validation=loaded["validation"][0] if "validation" in loaded else None,
        classes=classes,
        sources={name: names for name, (_, names) in loaded.items()},
    )


def divide(directory: Path, params: Mapping[str, Any]) -> dict[str, Found]:
    """Return the splits of a directory: its own, and by the seed those that it lacks."""
    if not directory.is_dir():
        raise FileNotFoundError(f"folder: {directory} is not a directory")
    given = {
        name: place
        for name, spellings in PARTS.items()
        for place in [next((directory / s for s in spellings if (directory / s).is_dir()), None)]
        if place is not None
    }
    if "train" not in given or len(given) < 2:
        given = {"train": directory}
    parts = {name: find(place, root=directory) for name, place in given.items()}
    for name, found in parts.items():
        if found.classes != parts["train"].classes:
            odd = sorted({*found.classes} ^ {*parts["train"].classes})
            raise ValueError(f"folder: train and {name} differ in the classes {', '.join(odd)}")
    shares = {name: params[name + "_share"] for name in ("validation", "test") if name not in parts}
    if shares.get("test") == 0:
        raise ValueError("folder: test_share=0.0 leaves no picture for test; expected a share > 0")
    return {**parts, **split(parts["train"], seed=params["seed"], **shares)}


def find(directory: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Found:
    """Return the pictures below DIR/<class>, classes and names in alphabetical order.

    Hidden files and files of other kinds are no pictures; a link that leads out of `root` (else of
    DIR) or to a folder is left out with a warning. Raises ValueError for fewer than two classes and
    an empty one.
    """
    place, root = Path(directory), Path(root or directory)
    folders = sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        there = f"only {folders[0].name!r}" if folders else "none"
        raise ValueError(
            f"folder: {place}: expected a sub-folder for each class, at least 2; there is {there}"
        )
    names: list[str] = []
    labels: list[int] = []
    left_out = 0
    for label, folder in enumerate(folders):
        inside, links = within(folder, root=root)
        left_out += links
        if not inside:
            kinds = ", ".join(picture.SUFFIXES)
            beside = f"; left out {_told(links, root)}" if links else ""
            raise ValueError(f"folder: {folder}: no picture of this class inside ({kinds}){beside}")
        names += [path.relative_to(root).as_posix() for path in inside]
        labels += [label] * len(inside)
    warn_of_links("folder", left_out, root)
    return Found(root, tuple(folder.name for folder in folders), tuple(names), tuple(labels))


def within(folder: Path, *, root: Path) -> tuple[list[Path], int]:
    """Return the pictures below a folder, and how many links out of `root` or to folders it has."""
    found, limit = list(walk(folder)), root.resolve()
    inside = [p for p in found if p.resolve().is_relative_to(limit) and _may_be_read(p)]
    return inside, len(found) - len(inside)


def _may_be_read(path: Path) -> bool:
    # A broken link is told of as a file that cannot be read; a pipe would keep its reader waiting.
    return path.is_file() or not path.exists()


def warn_of_links(what: str, count: int, root: Path) -> None:
    """Say in one line how many links were left out, if any were."""
    if count:
        warnings.warn(f"{what}: left out {_told(count, root)}", RuntimeWarning, stacklevel=3)


def _told(count: int, root: Path) -> str:
    links = "1 link that leads" if count == 1 else f"{count} links that lead"
    return f"{links} out of {root} or to a folder"


def walk(folder: Path) -> Iterator[Path]:
    """Yield the pictures below a folder in alphabetical order, and links to folders, unfollowed."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in folders if (path := Path(at, name)).is_symlink())
        for name in sorted(files):
            if name.lower().endswith(picture.SUFFIXES) and not name.startswith("."):
                yield Path(at, name)


def split(
    found: Found, *, seed: int, validation: float = 0.0, test: float = 0.0
) -> dict[str, Found]:
    """Divide the pictures of each class: {"train", "validation", "test"}, empty shares left out.

    A class is ordered by a hash of (seed, name); its first pictures, `test` of them rounded, are
    the test split, the next ones validation. One picture at least of a class stays in train, and a
    class of three or more has one in every split asked for.
    """
    shares = {name: share for name, share in (("test", test), ("validation", validation)) if share}
    if not all(share > 0 for share in shares.values()) or sum(shares.values()) >= 1:
        text = ", ".join(f"{name}_share={share}" for name, share in shares.items())
        raise ValueError(f"folder: {text}: expected shares from 0 on that leave some for train")
    chosen: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    labels = np.array(found.labels)
    for label in range(len(found.classes)):
        members = np.flatnonzero(labels == label).tolist()
        members.sort(key=lambda i: _lot(seed, found.names[i]))
        start = 0
        for name, share in shares.items():
            count = max(round(share * len(members)), int(len(members) > len(shares)))
            chosen[name] += members[start : start + count]
            start += count
        chosen["train"] += members[start:]
    return {name: take(found, sorted(indices)) for name, indices in chosen.items()}


def _lot(seed: int, name: str) -> bytes:
    # Names are bytes to the system, and not always UTF-8.
    return hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest()


def take(found: Found, indices: Sequence[int]) -> Found:
    """Return the pictures at `indices`."""
    return found._replace(
        names=tuple(found.names[i] for i in indices), labels=tuple(found.labels[i] for i in indices)
    )


def load(source: Pictures, skipped: list[UnreadablePicture]) -> tuple[Split, tuple[str, ...]]:
    """Return a split in memory and the names of its pictures; what cannot be read joins skipped."""
    images = np.empty(OnDisk(source).shape, np.uint8)
    kept: list[int] = []
    for index, image in readable(source, skipped):
        images[len(kept)] = image
        kept.append(index)
    found = take(source.found, kept)
    return Split(images[: len(kept)], np.array(found.labels, np.int32)), found.names


def leave(source: Pictures, skipped: list[UnreadablePicture]) -> tuple[Split, tuple[str, ...]]:
    """As `load`, of pictures that stay on disk."""
    found = take(source.found, [index for index, _ in readable(source, skipped)])
    images: Any = OnDisk(Pictures(found, source.frame))
    return Split(images, np.array(found.labels, np.int32)), found.names


def readable(
    source: Pictures, skipped: list[UnreadablePicture]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield every picture that can be read, with its index; the others join skipped."""

    def attempt(index: int) -> np.ndarray | UnreadablePicture:
        try:
            return source[index]["image"]
        except UnreadablePicture as error:
            return error

    for start in range(0, len(source), CHUNK):
        indices = range(start, min(start + CHUNK, len(source)))
        for index, item in zip(indices, _in_threads(attempt, indices), strict=True):
            if isinstance(item, UnreadablePicture):
                skipped.append(item)
            else:
                yield index, item


def _in_threads(function: Callable[[int], Any], indices: Iterable[int]) -> list[Any]:
    # Pillow lets other threads run while it decodes.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        return list(threads.map(function, indices))


def check_size(parts: Mapping[str, Found], frame: Frame) -> None:
    """Raise ValueError where the pictures would take more memory than MOST_BYTES."""
    count = sum(len(found.names) for found in parts.values())
    size = count * frame.size**2 * frame.channels
    if size > MOST_BYTES:
        raise ValueError(
            f"folder: {count:,} pictures of {frame.size} x {frame.size} x {frame.channels} take "
            f"{size / 2**30:.1f} GiB, more than the {MOST_BYTES / 2**30:.0f} GiB that are held in "
            "memory; choose a smaller size=, or keep=disk for those of training"
        )


def check_classes(name: str, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise ValueError for a split without pictures, and for a class that train knows none of."""
    if not len(labels):
        raise ValueError(f"folder: no picture for {name}; expected 3 a class, or other shares")
    lost = [c for label, c in enumerate(classes) if name == "train" and not np.any(labels == label)]
    if lost:
        raise ValueError(f"folder: no readable picture of {', '.join(lost)} is left for train")


def warn(skipped: Sequence[UnreadablePicture], total: int) -> None:
    """Say in one line how many pictures could not be read, and which the first ones are."""
    if skipped:
        first = "; ".join(map(str, skipped[:SHOWN]))
        more = f"; and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        warnings.warn(
            f"folder: skipped {len(skipped)} of {total} pictures: {first}{more}",
            RuntimeWarning,
            stacklevel=2,
        )

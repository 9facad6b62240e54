"""Images a second: from memory and from a folder of JPEG files, beside the step's appetite.

The appetite is what the training step of CNN 32-64-128 eats on this machine, its images given. A
loader is fast enough where the step takes longer: its ratio is then above 1. The step and the
loader share the processor, so what counts in training is the sum where the step runs on a CPU.
"""

from __future__ import annotations

import collections
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax import build
from cnnjax.bench.measure import Candidate, Cell
from cnnjax.bench.pictures import random_dataset
from cnnjax.config import Config
from cnnjax.data import Dataset
from cnnjax.train.batches import feed
from cnnjax.train.loader import Loader
from cnnjax.train.parallel import make_plan
from cnnjax.train.training import build_step, first_state

CONFIG = Config(net="cnn", widths=(32, 64, 128), dense=(128,), batch_size=128, train_shift=0)
BATCHES = 8
IMAGES = BATCHES * CONFIG.batch_size
SIZES = (32, 64)
GROUP = ("images from",)


def cells() -> Iterator[Cell]:
    """Yield a cell for images in memory and for JPEG files of each size."""
    for size in SIZES:
        labels = {"images from": "memory", "size": f"{size}x{size}x3"}
        yield Cell(labels, partial(from_memory, size), images=IMAGES)
    for size in SIZES:
        labels = {"images from": "JPEG files", "size": f"{size}x{size}x3"}
        yield Cell(labels, partial(from_files, size), images=IMAGES)


def from_memory(size: int) -> Mapping[str, Candidate | str]:
    """Return the feed of a split in memory, and the step."""
    read = feed(pictures(size).train, batch_size=CONFIG.batch_size, seed=0)
    return {"memory": Candidate(lambda: list(read(0, 0))), "step": Candidate(step(size))}


def from_files(size: int) -> Mapping[str, Candidate | str]:
    """Return the loader with threads and with worker processes, one file at a time, the step."""
    files, found = JpegFiles.written(size), dict[str, Candidate | str]()
    for workers in sorted({0, min(2, os.cpu_count() or 1), os.cpu_count() or 1}, reverse=True):
        found[f"loader, {workers} processes" if workers else "loader, threads"] = loading(
            files, workers
        )
    found["one at a time"] = Candidate(lambda: [files[i] for i in range(len(files))])
    return found | {"step": Candidate(step(size))}


def loading(files: JpegFiles, workers: int) -> Candidate | str:
    """Return the next batches of one running loader as a candidate."""
    try:
        loader = Loader(files, batch_size=CONFIG.batch_size, seed=0, workers=workers)
    except ValueError as error:
        return str(error)
    stream = loader.iterator()
    # What was read while the others were measured is no work of this turn: it comes on top.
    return Candidate(lambda: collections.deque(itertools.islice(stream, loader.ahead + BATCHES), 0))


class JpegFiles:
    """A folder of JPEG files as a source: decoded when asked for."""

    def __init__(self, folder: str, count: int) -> None:
        self._folder, self._count = folder, count

    @staticmethod
    @cache
    def written(size: int) -> JpegFiles:
        """Write smooth random pictures into a temporary folder; they compress like photographs."""
        from PIL import Image

        folder = _temporary().name
        for index, image in enumerate(pictures(size).train.images):
            coarse = Image.fromarray(image[: max(size // 8, 2), : max(size // 8, 2)])
            path = Path(folder, f"{size}-{index}.jpg")
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)
        return JpegFiles(f"{folder}/{size}", IMAGES)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        from PIL import Image

        with Image.open(f"{self._folder}-{index}.jpg") as image:
            return np.asarray(image), index % 10


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cnnjax-bench-")


@cache
def pictures(size: int) -> Dataset:
    """Return the pictures of a cell."""
    return random_dataset(IMAGES, (size, size, 3))


def step(size: int) -> Callable[[], Any]:
    """Return what trains on the pictures of one cell, its batches made beforehand."""
    data, plan, tx = pictures(size), make_plan(), build.build_optimizer(CONFIG, BATCHES)
    net = build.build_net(CONFIG, data.num_classes, data.image_shape)
    compiled = jax.jit(build_step(CONFIG, plan, net, tx, data))
    start = first_state(CONFIG, plan, net, tx, data)
    batches = list(feed(data.train, batch_size=CONFIG.batch_size, seed=0)(0, 0))

    def run() -> Any:
        state = start
        for batch in batches:
            state, _ = compiled(state, batch)
        return jax.block_until_ready(state)

    return run

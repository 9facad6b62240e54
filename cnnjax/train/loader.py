"""Images read when their turn comes, by Grain's threads or worker processes (extra `grain`).

    with Loader(source, batch_size=256, seed=0, workers=4) as loader:
        for batch in loader(epoch, first):               # the batches that `batches.feed` gives
            ...

A source is anything with len(source) and source[i] -> (image (H, W, C) uint8, label); it must
pickle, and worker processes import the module of its class. Which image stands where follows from
(seed, epoch, batch, row) alone: not from workers or threads, nor, as each process of several takes
its rows of every batch, from their number. So the place to go on from is an index; `iterator` is
Grain's own, whose state Orbax keeps (grain.checkpoint.CheckpointSave).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from cnnjax.data import Split
from cnnjax.train.batches import WHOLE, Batch, permutation, plan_rows
from cnnjax.train.lifeline import end_with

# Batches that each worker reads at a time, and that wait in it: enough to bridge a slow file.
THREADS, WAITING = 4, 2


class Source(Protocol):
    """Images and labels by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]: ...


@dataclass(frozen=True, eq=False)
class Pairs:
    """A split as a source; its images may be read from files, one at an index."""

    split: Split

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.split.images[index], self.split.labels[index]


@dataclass(frozen=True, eq=False)
class Sequence:
    """The endless sequence of records of one process: its rows of every batch of every epoch."""

    source: Source
    batch_size: int
    seed: int
    part: slice

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.source) // self.batch_size)

    @property
    def share(self) -> int:
        """Rows of a batch that are this process's."""
        return len(range(self.batch_size)[self.part])

    def __len__(self) -> int:
        return 2**60

    def __getitem__(self, index: int) -> Batch:
        batch, row = divmod(index, self.share)
        rows, weight = _rows(len(self.source), self.batch_size, self.seed, batch)
        image, label = self.source[int(rows[self.part][row])]
        return {
            "image": np.asarray(image),
            "label": np.asarray(label, np.int32),
            "weight": weight[self.part][row],
        }


@functools.lru_cache(maxsize=64)
def _rows(count: int, batch_size: int, seed: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    epoch, first = divmod(batch, -(-count // batch_size))
    return next(plan_rows(_order(count, seed, epoch), batch_size=batch_size, first=first))


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return permutation(count, seed, epoch)


class Loader:
    """A feed (see `batches`) over a source; it reads ahead over the end of an epoch.

    workers: processes that read; 0 for threads of this one. part: rows of each batch that are this
    process's. ValueError where Grain is not installed.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        part: slice = WHOLE,
        workers: int = 0,
    ) -> None:
        self._sequence = Sequence(source, batch_size, seed, part)
        self._grain, self._workers = grain(), workers
        self._open: Any = None
        self._at = -1

    def __call__(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from the `first` on."""
        start, end = (epoch * self._sequence.steps + n for n in (first, self._sequence.steps))
        if self._open is None or self._at != start:
            self.close()
            self._open, self._at = self.iterator(start), start
        while self._at < end:
            batch = next(self._open)
            self._at += 1
            yield batch

    def iterator(self, batch: int = 0) -> Any:
        """Return Grain's iterator over all batches of all epochs, from `batch` on; close() it."""
        records = self._grain.MapDataset.source(self._sequence)
        # Batches are formed before they are dealt to workers: so no number of these changes one.
        whole = records.batch(self._sequence.share)[batch:]
        options = self._grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
        stream = whole.to_iter_dataset(options)
        if self._workers:
            how = self._grain.MultiprocessingOptions(self._workers, WAITING)
            stream = stream.mp_prefetch(how, worker_init_fn=functools.partial(_begin, os.getpid()))
        return iter(stream)

    @property
    def ahead(self) -> int:
        """The most batches that lie read and not yet asked for."""
        return (THREADS + 1 + WAITING) * self._workers or THREADS + 1

    def close(self) -> None:
        """Stop reading; end the worker processes."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def _begin(owner: int, index: int, count: int) -> None:
    end_with(owner)  # not with the parent of now: it may have died while this process started


def grain() -> Any:
    """Return the module `grain`, ready for use; ValueError where it is missing."""
    try:
        module = importlib.import_module("grain")
    except ImportError as error:
        raise ValueError(
            f"data_workers: reading through Grain needs the package grain ({error}); "
            "pip install 'cnnjax[grain]'"
        ) from None
    from absl.flags import FLAGS

    # Grain defines flags of its own on the process-wide FLAGS and will not read them unparsed.
    if not FLAGS.is_parsed():
        FLAGS.mark_as_parsed()
    return module

"""Many steps as one dispatch: the data set lies on the device, a loop there runs over its batches.

    chunk = jax.jit(many_steps(step), donate_argnums=0)
    state, sums = chunk(state, images, labels, rows, weight)     # rows, weight: (steps, B)

The host sends indices instead of images and waits once a chunk instead of once a step; the numbers
are those of the host loop up to rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from cnnjax.data import Split
from cnnjax.train.batches import permutation, plan_rows, taken
from cnnjax.train.fit import Report, ignore, never
from cnnjax.train.progress import Progress

# Steps that are one dispatch unasked: enough to hide its start, few for SIGTERM to wait for.
AT_A_TIME = 20
# The largest data set that is put on a device unasked.
RESIDENT_BYTES = 2**30


def many_steps(step: Any) -> Any:
    """Return (state, images, labels, rows, weight) -> (state, sums of every step)."""

    def chunk(state: Any, images: Any, labels: Any, rows: Any, weight: Any) -> tuple[Any, Any]:
        def body(state: Any, batch: Any) -> tuple[Any, Any]:
            own, weight = batch
            return step(state, {"image": images[own], "label": labels[own], "weight": weight})

        return lax.scan(body, state, (rows, weight))

    return chunk


def pays(split: Split) -> bool:
    """Return whether chunks are the way to train on it here: on accelerators, of small data sets.

    There the start of each step costs more than a small network's step itself, on a CPU little
    (docs/benchmarks.md).
    """
    small = isinstance(split.images, np.ndarray) and split.images.nbytes <= RESIDENT_BYTES
    return small and jax.default_backend() != "cpu"


def fit_in_chunks(
    chunk: Callable[..., tuple[Any, Any]],
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    split: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    on_epoch: Report = ignore,
    between: Callable[[Any, Progress], None] = never,
    progress: Progress | None = None,
    every: int | None = None,
    most: int | None = None,
    put: Callable[[Any], Any] = jax.device_put,
    place: Callable[[Any], Any] = lambda batch: batch,
) -> Any:
    """Train as `fit` does, in chunks of one length: an epoch's, or `every` or `most` steps.

    None goes beyond a step that `every` divides; what is too short for a chunk is trained by `step`
    as `fit` does, so that two programs are all. put: puts the data set on the devices. place: puts
    a batch where `step` wants it. `between` is called after each chunk and each such step.
    """
    progress = progress or Progress()
    if progress.epoch == epochs:
        return state
    images, labels = put(np.asarray(split.images)), put(split.labels)
    length = min(filter(None, (math.ceil(len(split.labels) / batch_size), every, most)))
    while progress.epoch < epochs:
        progress.begin()
        order = permutation(len(split.labels), seed, progress.epoch)
        plan = plan_rows(order, batch_size=batch_size, first=progress.batch)
        while part := list(itertools.islice(plan, _until(progress.step, every, length))):
            if len(part) == length:
                rows, weight = (np.stack(column) for column in zip(*part, strict=True))
                state, sums = chunk(state, images, labels, rows, weight)
                _note(progress, sums, length)
                progress.look(state.params)
                between(state, progress)
                continue
            for batch in taken(split, part):
                state, sums = step(state, place(batch))
                progress.note(sums)
                between(state, progress)
        progress.look(state.params)
        on_epoch(progress.close())
    return state


def _note(progress: Progress, sums: Any, count: int) -> None:
    host = jax.device_get(sums)
    for index in range(count):
        progress.note({name: value[index] for name, value in host.items()})


def _until(step: int, every: int | None, length: int) -> int:
    return length if every is None else min(length, every - step % every)

"""Many steps as one dispatch: the data set lies on the device, a loop there runs over its batches.

    chunk = jax.jit(many_steps(step), donate_argnums=0)
    state, sums = chunk(state, images, labels, rows, weight)     # rows, weight: (steps, B)

The host sends indices instead of images and waits once a chunk instead of once a step; the numbers
are those of the host loop up to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from cnnjax.data import Split
from cnnjax.train.batches import permutation, plan_rows
from cnnjax.train.fit import Report, ignore, never
from cnnjax.train.progress import Progress


def many_steps(step: Any) -> Any:
    """Return (state, images, labels, rows, weight) -> (state, sums of every step)."""

    def chunk(state: Any, images: Any, labels: Any, rows: Any, weight: Any) -> tuple[Any, Any]:
        def body(state: Any, batch: Any) -> tuple[Any, Any]:
            own, weight = batch
            return step(state, {"image": images[own], "label": labels[own], "weight": weight})

        return lax.scan(body, state, (rows, weight))

    return chunk


def fit_in_chunks(
    chunk: Callable[..., tuple[Any, Any]],
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
    put: Callable[[Any], Any] = jax.device_put,
) -> Any:
    """Train as `fit` does, an epoch a dispatch; or at most `every` steps, counted from the first.

    put: puts the data set on the devices. `between` is called after each chunk.
    """
    progress = progress or Progress()
    images, labels = put(np.asarray(split.images)), put(split.labels)
    while progress.epoch < epochs:
        progress.begin()
        order = permutation(len(split.labels), seed, progress.epoch)
        plan = plan_rows(order, batch_size=batch_size, first=progress.batch)
        while part := list(itertools.islice(plan, _until(progress.step, every))):
            rows, weight = (np.stack(column) for column in zip(*part, strict=True))
            state, sums = chunk(state, images, labels, rows, weight)
            host = jax.device_get(sums)
            for index in range(len(part)):
                progress.note({name: value[index] for name, value in host.items()})
            progress.look(state.params)
            between(state, progress)
        on_epoch(progress.close())
    return state


def _until(step: int, every: int | None) -> int | None:
    return None if every is None else every - step % every

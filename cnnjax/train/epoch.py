"""Many steps as one dispatch: the data set lies on the device, a loop there runs over its batches.

    chunk = jax.jit(many_steps(step), donate_argnums=0)
    state, sums = chunk(state, images, labels, rows, weight, 5)    # rows, weight: (steps, B)

The host sends indices instead of images and waits once a chunk instead of once a step; the numbers
are those of the host loop up to rounding. One program takes chunks of every length up to `steps`,
so that a run that was stopped goes on in the same bits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.data import Split
from cnnjax.train.batches import permutation, plan_rows
from cnnjax.train.fit import Report, ignore, never
from cnnjax.train.progress import Progress

# The largest data set that is put on a device unasked.
RESIDENT_BYTES = 2**30


def many_steps(step: Any) -> Any:
    """Return (state, images, labels, rows, weight, count) -> (state, sums).

    The first `count` rows are taken; `sums` have a row for each, and zeros for the others.
    """
    step = jax.jit(step)  # traced once, for the shapes of its sums and in the loop

    def chunk(
        state: Any, images: Any, labels: Any, rows: Any, weight: Any, count: Any
    ) -> tuple[Any, Any]:
        def batch(index: Any) -> dict[str, Any]:
            own = rows[index]
            return {"image": images[own], "label": labels[own], "weight": weight[index]}

        def body(index: Any, carry: Any) -> tuple[Any, Any]:
            state, sums = carry
            state, new = step(state, batch(index))
            put = functools.partial(lax.dynamic_update_index_in_dim, index=index, axis=0)
            return state, jax.tree.map(put, sums, new)

        _, sums = jax.eval_shape(step, state, jax.eval_shape(batch, 0))
        empty = jax.tree.map(lambda one: jnp.zeros((len(rows), *one.shape), one.dtype), sums)
        return lax.fori_loop(0, count, body, (state, empty))

    return chunk


def pays(split: Split) -> bool:
    """Return whether chunks are the way to train on it here: on accelerators, of small data sets.

    There the start of each step costs more than a small network's step itself
    (docs/benchmarks.md); on a CPU they gain little, and SIGTERM waits for the end of a chunk.
    """
    small = isinstance(split.images, np.ndarray) and split.images.nbytes <= RESIDENT_BYTES
    return small and jax.default_backend() != "cpu"


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
    most: int | None = None,
    put: Callable[[Any], Any] = jax.device_put,
) -> Any:
    """Train as `fit` does, an epoch a dispatch, or `most` steps, and none beyond each `every`.

    put: puts the data set on the devices. `between` is called after each chunk.
    """
    progress = progress or Progress()
    images, labels = put(np.asarray(split.images)), put(split.labels)
    # Not shortened by `every`: runs that save more or less often are the same program.
    longest = min(math.ceil(len(split.labels) / batch_size), most or len(split.labels))
    while progress.epoch < epochs:
        progress.begin()
        order = permutation(len(split.labels), seed, progress.epoch)
        plan = plan_rows(order, batch_size=batch_size, first=progress.batch)
        while part := list(itertools.islice(plan, _until(progress.step, every, longest))):
            rows, weight = (filled(column, longest) for column in zip(*part, strict=True))
            state, sums = chunk(state, images, labels, rows, weight, np.int32(len(part)))
            host = jax.device_get(sums)
            for index in range(len(part)):
                progress.note({name: value[index] for name, value in host.items()})
            progress.look(state.params)
            between(state, progress)
        on_epoch(progress.close())
    return state


def filled(rows: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return the rows as one array of `count`, with zeros behind them."""
    stacked = np.stack(rows)
    return np.pad(stacked, [(0, count - len(rows)), *[(0, 0)] * (stacked.ndim - 1)])


def _until(step: int, every: int | None, longest: int) -> int:
    return longest if every is None else min(longest, every - step % every)

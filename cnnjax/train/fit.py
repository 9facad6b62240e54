"""The training loop: a host loop over a compiled step, and evaluation that counts every image once.

state = fit(step, state, dataset.train, epochs=20, batch_size=64, seed=0, on_epoch=print)
report = evaluate(eval_step, state.variables, dataset.test, batch_size=256)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnnjax.data import Split
from cnnjax.train.batches import batches, permutation
from cnnjax.train.step import TrainState


class Diverged(FloatingPointError):
    """The loss stopped being finite."""


def fit(
    step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    state: TrainState,
    split: Split,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    on_epoch: Callable[[dict[str, Any]], None] = lambda line: None,
) -> TrainState:
    """Train for `epochs` passes; after each call on_epoch({"epoch", "loss", "accuracy", ...}).

    `step` may donate the state. Raises Diverged at the end of an epoch whose loss is not finite.
    """
    for epoch in range(epochs):
        start = time.perf_counter()
        order = permutation(len(split.labels), seed, epoch)
        sums = []
        for batch in batches(split, batch_size=batch_size, order=order):
            state, batch_sums = step(state, batch)
            sums.append(batch_sums)
        line = {"epoch": epoch + 1, "step": int(state.step), **_means(sums)}
        if not np.isfinite(line["loss"]):
            raise Diverged(f"the loss is {line['loss']} after epoch {epoch + 1}")
        on_epoch(line | {"seconds": time.perf_counter() - start})
    return state


def evaluate(
    step: Callable[[Any, Any], tuple[jax.Array, Any]],
    variables: Any,
    split: Split,
    *,
    batch_size: int,
) -> dict[str, float]:
    """Return loss and accuracy over all images of `split`, each counted once."""
    parts = (step(variables, batch) for batch in batches(split, batch_size=batch_size))
    return _means([sums for _, sums in parts])


def _means(sums: list[Any]) -> dict[str, float]:
    sums = jax.device_get(sums)
    totals = {name: float(sum(np.float64(s[name]) for s in sums)) for name in sums[0]}
    count = totals["count"]
    return {
        "loss": totals["loss"] / count,
        "accuracy": totals["correct"] / count,
        "images": int(count),
    }

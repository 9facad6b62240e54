"""The training loop: a host loop over a compiled step, and evaluation that counts every image once.

    batches = feed(dataset.train, batch_size=64, seed=0)
    state = fit(step, state, batches, epochs=20, on_epoch=print)
    report, logits = evaluate(eval_step, state.variables, dataset.test, batch_size=256)

All that training needs beside its state is a Progress; a loop started from a saved pair of them
goes on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from cnnjax.data import Split
from cnnjax.train.batches import Feed, batches
from cnnjax.train.progress import Diverged, Progress
from cnnjax.train.step import TrainState

__all__ = ["Diverged", "evaluate", "fit"]

# Steps between looks at the loss: rare enough that the device never waits for the host.
LOOK = 100

Report = Callable[[dict[str, Any]], None]


def ignore(line: Any) -> None:
    """Report to nobody."""


def never(state: TrainState, progress: Progress) -> None:
    """Do nothing between steps."""


def fit(
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: TrainState,
    feed: Feed,
    *,
    epochs: int,
    on_epoch: Report = ignore,
    between: Callable[[TrainState, Progress], None] = never,
    progress: Progress | None = None,
    place: Callable[[Any], Any] = lambda batch: batch,
) -> TrainState:
    """Train for `epochs` passes from `progress` on; after each call on_epoch with its line.

    step: (state, batch) -> (state, sums); it may consume the state. place: puts a batch of the feed
    where the step wants it. between: called after each step. A line is {"epoch", "step", "loss",
    "accuracy", "images", "seconds"}. Raises Diverged where a loss is not finite.
    """
    progress = progress or Progress()
    while progress.epoch < epochs:
        progress.begin()
        for batch in feed(progress.epoch, progress.batch):
            state, sums = step(state, place(batch))
            progress.note(sums)
            if progress.batch % LOOK == 0:
                progress.look(state.params)
            between(state, progress)
        progress.look(state.params)
        on_epoch(progress.close())
    return state


def finite(variables: Any, step: int) -> Any:
    """Return variables; Diverged where one overflowed in the last step, which no loss has seen."""
    for path, leaf in flatten_dict(variables, sep="/").items():
        if not np.isfinite(leaf).all():
            raise Diverged(f"{path} is not finite after step {step}, the last", step)
    return variables


def evaluate(
    step: Callable[[Any, Any], tuple[Any, Any]],
    variables: Any,
    split: Split,
    *,
    batch_size: int,
) -> tuple[dict[str, float], np.ndarray]:
    """Return loss and accuracy over all images of `split`, each counted once, and logits (N, K)."""
    parts = [step(variables, batch) for batch in batches(split, batch_size=batch_size)]
    sums = jax.device_get([sums for _, sums in parts])
    logits = [np.asarray(logits) for logits, _ in parts]
    totals = {name: sum(np.float64(part[name]) for part in sums) for name in sums[0]}
    report = {
        "loss": float(totals["loss"] / totals["count"]),
        "accuracy": float(totals["correct"] / totals["count"]),
        "images": int(totals["count"]),
    }
    return report, np.concatenate(logits)[: len(split.labels)]

"""Progress: where training stands beside its state, and the watch for a loss that is not finite.

progress = Progress()
progress.begin()                # an epoch, or the rest of one
progress.note(sums)             # after each step: sums stay on the device
progress.look(state.params)     # now and then: fetch them; Diverged where one is not finite
line = progress.close()         # the epoch is over
Progress.restored(progress.saved())
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

NAMES = ("loss", "correct", "count")
LARGEST = 3


class Diverged(FloatingPointError):
    """A loss stopped being finite, at the given step."""

    def __init__(self, text: str, step: int) -> None:
        super().__init__(text)
        self.step = step


@dataclass
class Progress:
    """Finished epochs and their lines; batches and sums of the epoch at hand."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 0.0))
    seconds: float = 0.0
    gradients: Any = None
    pending: list[Any] = field(default_factory=list)
    begun: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """Start the clock."""
        self.begun = time.perf_counter()

    def note(self, sums: Any) -> None:
        """Count a step whose sums are on their way."""
        self.pending.append(sums)
        self.batch += 1
        self.step += 1

    def look(self, params: Any = None) -> None:
        """Add up the sums so far; wait for them. Raises Diverged, naming the step.

        params: gives the names of the gradients.
        """
        first = self.step - len(self.pending) + 1
        pending, self.pending = jax.device_get(self.pending), []
        for step, sums in enumerate(pending, start=first):
            if not np.isfinite(sums["loss"]):
                text = f"the loss is {sums['loss']} at step {step} (epoch {self.epoch + 1})"
                raise Diverged(text + self._largest(params), step)
            gradients = sums.get("gradients")
            if gradients is not None and not np.isfinite(gradients).all():
                text = f"the gradient is not finite at step {step} (epoch {self.epoch + 1})"
                raise Diverged(text + self._largest(params), step)
            for name in NAMES:
                # float64, in the order of the steps: the same sum wherever one looks.
                self.totals[name] += float(sums[name])
            if sums["count"]:  # not of a step that a loss scale skipped
                self.gradients = gradients

    def _largest(self, params: Any) -> str:
        if self.gradients is None or params is None:
            return ""
        names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        order = np.argsort(-self.gradients)[:LARGEST]
        found = ", ".join(f"{names[i]} {self.gradients[i]:.3g}" for i in order)
        return f"; largest gradients a step before: {found}"

    def means(self) -> dict[str, Any]:
        """Return loss, accuracy and images of the epoch at hand, as far as looked at."""
        count = self.totals["count"]
        return {
            "loss": self.totals["loss"] / max(count, 1.0),
            "accuracy": self.totals["correct"] / max(count, 1.0),
            "images": int(count),
        }

    def close(self) -> dict[str, Any]:
        """End the epoch; return its line."""
        line = {"epoch": self.epoch + 1, "step": self.step, **self.means()}
        line["seconds"] = self.elapsed()
        self.lines.append(line)
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.totals = dict.fromkeys(NAMES, 0.0)
        return line

    def elapsed(self) -> float:
        """Return the seconds that the epoch at hand has taken, time between two runs aside."""
        return self.seconds + time.perf_counter() - self.begun

    def seconds_trained(self) -> float:
        """Return the seconds of all epochs so far; of the epoch at hand, those of earlier runs."""
        return sum(line["seconds"] for line in self.lines) + self.seconds

    def saved(self) -> dict[str, Any]:
        """Return a copy of all of it for JSON; `look` comes first."""
        names = ("epoch", "batch", "step", "lines", "totals")
        # A copy all the way down: a checkpoint is written while training goes on.
        values = {name: copy.deepcopy(getattr(self, name)) for name in names}
        # Between two epochs the clock of the one before still runs.
        return values | {"seconds": self.elapsed() if self.batch else 0.0}

    @staticmethod
    def restored(values: dict[str, Any]) -> Progress:
        """Inverse of `saved`."""
        return Progress(**values)


def leaf_name(path: Any) -> str:
    """Return the slash-separated name of a leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")

"""The invariance figures of one trained net as one flat row: net, images, labels -> {name: number}.

    row = battery(net, variables, x, y)                    # all circular shifts
    row = battery(net, variables, x, y, level="full")      # zeros, diagonals, aliasing as well

Each name says its shift set and boundary: circular_* is over all H*W circular shifts, zeros4_* over
the 81 shifts within 4 px with zeros coming in, diagonal_* along
8 places one diagonal pixel apart, with zeros coming in.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import numpy as np

from cnnjax.invariance import layerwise, metrics
from cnnjax.invariance.exhaustive import exhaustive
from cnnjax.invariance.logits import MEMORY, InEvaluation, shift_logits
from cnnjax.ops import shifts as moves

LEVELS = ("cheap", "full")


def battery(
    net: nn.Module,
    variables: Any,
    x: Any,
    y: Any,
    *,
    level: str = "cheap",
    radius: int = 4,
    memory: int = MEMORY,
) -> dict[str, float]:
    """Return the row of net at its variables for images x (N, H, W, C) and labels y (N,)."""
    if level not in LEVELS:
        raise ValueError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
    result = exhaustive(net, variables, x, memory=memory)
    row = figures("circular", result.logits, y)
    row["circular_distinct"] = float(np.prod(result.distinct))
    if level == "cheap":
        return row
    call = InEvaluation(net)
    zeros = shift_logits(call, x, radius, "zeros", variables=variables, memory=memory)
    row |= figures(f"zeros{radius}", zeros, y)
    steps = moves.diagonal(8) - 4
    path = shift_logits(call, x, steps, "zeros", variables=variables, memory=memory)
    row["diagonal_top1_change"] = metrics.top1_change(path.argmax(-1))
    row["diagonal_mean_absolute_change"] = metrics.mean_absolute_change(path)
    sites = layerwise.downsampling(net, variables, np.asarray(x)[:64])
    for number, site in enumerate(sites.values()):
        row |= {f"site{number}_{name}": value for name, value in site.items()}
    return row


def figures(prefix: str, logits: np.ndarray, y: Any) -> dict[str, float]:
    """Return the closed forms of logits (N, K, C), K >= 2, with their names prefixed."""
    classes = logits.argmax(-1)
    interval = metrics.bootstrap(metrics.pair_agreement(classes))
    found = {
        "consistency": interval.mean,
        "consistency_low": interval.low,
        "consistency_high": interval.high,
        "conditional_consistency": metrics.conditional_consistency(classes, y),
        "fidelity": metrics.fidelity(classes, y),
        "accuracy": metrics.accuracy(classes, y),
        "worst_case_accuracy": metrics.worst_case_accuracy(classes, y),
    }
    return {f"{prefix}_{name}": value for name, value in found.items()}

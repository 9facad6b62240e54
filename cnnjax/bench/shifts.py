"""Workload "shifts": exact circular consistency by one dense pass, beside rolling.

    for case in cases(images=1000):
        case.columns["dense"]()           # each column computes the consistency of the same net
    rows = measure(repeats=3)             # seconds per image, interleaved, with the ratios

Total strides 4 and 8 on 32 x 32 x 3: every column visits all 1,024 circular shifts of an image, by
one dense pass, by rolling the S*S cosets (what a user who knows the theorem would do), or by
rolling all of them. Columns run on as many images as they can afford; times are per image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance.exhaustive import exhaustive_logits
from cnnjax.invariance.logits import InEvaluation, shift_logits
from cnnjax.invariance.metrics import consistency
from cnnjax.layers.pooling import Pool
from cnnjax.ops import shifts as moves

SIZE = 32


class Net(nn.Module):
    """One 3 x 3 convolution, ReLU and 2 x 2 max pool a width, mean over places, logits."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for width in self.widths:
            x = nn.relu(nn.Conv(width, (3, 3), padding="CIRCULAR")(x))
            x = Pool("max", window=2, stride=2)(x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


@dataclass(frozen=True)
class Case:
    """Three ways to one number; `images` says on how many images each way is timed."""

    name: str
    columns: dict[str, Callable[[], float]]
    images: dict[str, int]


def cases(*, images: int = 1000) -> list[Case]:
    """Return the cases of the workload; rolling all shifts gets 1 image in 125 and at least 1."""
    return [_case((32, 64), 4, images), _case((32, 64, 128), 8, images)]


def measure(*, images: int = 1000, repeats: int = 3) -> list[dict[str, Any]]:
    """Return a row for each case: median, min and max seconds per image by column, and ratios."""
    rows = []
    for case in cases(images=images):
        times: dict[str, list[float]] = {column: [] for column in case.columns}
        for repeat in range(repeats + 1):
            for column, run in case.columns.items():
                start = time.perf_counter()
                run()
                if repeat:  # the first compiles
                    times[column].append((time.perf_counter() - start) / case.images[column])
        seconds = {
            k: {"median": float(np.median(v)), "min": min(v), "max": max(v)}
            for k, v in times.items()
        }
        dense = seconds["dense"]["median"]
        ratios = {k: v["median"] / dense for k, v in seconds.items()}
        rows.append({"case": case.name, "seconds_per_image": seconds, "times_dense": ratios})
    return rows


def _case(widths: tuple[int, ...], stride: int, images: int) -> Case:
    net = Net(widths)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(images, SIZE, SIZE, 3)).astype(np.float32)
    variables = net.init(jax.random.key(0), x[:1])
    call = InEvaluation(net)
    counts = {"dense": images, "cosets": max(1, images // 8), "rolls": max(1, images // 125)}

    def rolled(count: int, offsets: Any) -> float:
        logits = shift_logits(call, x[:count], offsets, variables=variables)
        return consistency(logits.argmax(-1))

    columns: dict[str, Callable[[], float]] = {
        "dense": lambda: consistency(exhaustive_logits(net, variables, x).argmax(-1)),
        "cosets": lambda: rolled(counts["cosets"], moves.all_offsets((stride, stride))),
        "rolls": lambda: rolled(counts["rolls"], "all"),
    }
    return Case(f"total stride {stride}, {SIZE} x {SIZE} x 3", columns, counts)

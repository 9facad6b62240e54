"""Exact circular consistency by one dense pass, beside rolling the S*S cosets and every shift.

Max-pooling nets of total stride 4 and 8 on 32 x 32 x 3. Every candidate computes the consistency of
the same images over all 1,024 circular shifts: by `exhaustive_logits`, its proof on a sample
included; by rolling the S*S distinct shifts (what a user who knows the theorem would do); and by
rolling all of them, which for 1,000 images would take a quarter of an hour and is not run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.bench.measure import Candidate, Cell
from cnnjax.invariance.exhaustive import exhaustive_logits
from cnnjax.invariance.logits import InEvaluation, shift_logits
from cnnjax.invariance.metrics import consistency
from cnnjax.layers.pooling import Pool
from cnnjax.ops import shifts as moves

SIZE, IMAGES = 32, (16, 1000)
WIDTHS = {4: (32, 64), 8: (32, 64, 128)}
GROUP = ("total stride",)


class Net(nn.Module):
    """One 3 x 3 convolution, ReLU and 2 x 2 max pool a width, mean over places, logits."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for width in self.widths:
            x = nn.relu(nn.Conv(width, (3, 3), padding="CIRCULAR")(x))
            x = Pool("max", window=2, stride=2)(x)
        return nn.Dense(10)(jnp.mean(x, axis=(1, 2)))


def cells() -> Iterator[Cell]:
    """Yield a cell for each total stride."""
    for images, (stride, widths) in itertools.product(IMAGES, WIDTHS.items()):
        labels = {"total stride": str(stride), "map": f"{SIZE}x{SIZE}x3"}
        labels["images"] = f"{images} images"
        make = partial(candidates, Net(widths), stride, images)
        yield Cell(labels, make, once=images > IMAGES[0])


def candidates(net: Net, stride: int, images: int) -> Mapping[str, Candidate | str]:
    """Return the three ways to the consistency of one net, compiled; ours first."""
    x = np.random.default_rng(0).normal(size=(images, SIZE, SIZE, 3)).astype(np.float32)
    variables = net.init(jax.random.key(0), x[:1])

    def dense() -> float:
        return consistency(exhaustive_logits(net, variables, x).argmax(-1))

    def rolled(offsets: Any) -> float:
        logits = shift_logits(InEvaluation(net), x, offsets, variables=variables)
        return consistency(logits.argmax(-1))

    cosets = partial(rolled, moves.all_offsets((stride, stride)))
    for run in (dense, cosets):  # all shifts are the program of the cosets
        run()
    every: Candidate | str = Candidate(partial(rolled, "all"))
    if images > IMAGES[0]:
        every = f"not run: as many times the cosets as for {IMAGES[0]} images"
    return {
        "dense pass": Candidate(dense),
        "rolled cosets": Candidate(cosets),
        "rolled shifts": every,
    }

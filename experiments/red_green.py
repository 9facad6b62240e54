"""usage: python -m experiments.red_green [--seeds=N] [--borders=A,B] [--epochs=N] [--bias]

Does a network know where, not only what? (Kayhan and van Gemert 2020) The class is the order of a
red and a green box, and in training it goes with the half of the image; in the dissimilar images it
goes with the other half. What a network scores there says what it made of the place.

Without biases nothing but the borders can tell places apart. Theory then says: circular and FULL
borders see the same in both sets, exactly, as the total stride 8 divides the 16 rows between them;
VALID and zero padding need not. (A bias fills the ring that FULL adds, and the next layer sees it.)
Published: similar 100.0, 99.8, 73.7, 89.7 and dissimilar 0.2, 8.4, 73.7, 89.7 per cent for VALID,
ZEROS, CIRCULAR, FULL, of other networks: signs compare, digits do not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import spec
from cnnjax.cli import answer
from cnnjax.cli.flags import Flags
from cnnjax.invariance import probes
from cnnjax.layers.conv import Conv
from cnnjax.ops import padding as pads

BORDERS = ("VALID", "ZEROS", "CIRCULAR", "FULL")
STRIDES = (1, 2, 1, 2, 1, 2)


class Reader(nn.Module):
    """Six 3 x 3 convolutions, total stride 8: in the end one place sees the whole image."""

    padding: str
    use_bias: bool = False
    features: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for stride in STRIDES:
            convolve = Conv(
                self.features, (3, 3), stride, padding=self.padding, use_bias=self.use_bias
            )
            x = nn.relu(convolve(x))
        return nn.Dense(2)(jnp.max(x, axis=(1, 2)))


def rows(
    seeds: int, borders: Sequence[str] = BORDERS, *, epochs: int = 4, bias: bool = False
) -> Iterator[dict[str, Any]]:
    """Train each border's network at each seed; yield {border, seed, similar, dissimilar}."""
    for border in borders:
        for seed in range(seeds):
            found = probes.red_green_probe(Reader(border, bias), seed=seed, epochs=epochs)
            yield {"border": border, "seed": seed} | found


def line(border: str, found: np.ndarray) -> str:
    """Return a row of the table from accuracies (seeds, 2): means and deviations in per cent."""
    equal = int((found[:, 0] == found[:, 1]).sum())
    cells = [f"{v.mean() * 100:.1f} +- {v.std(ddof=1) * 100:.1f}" for v in found.T]
    return f"| {border} | {cells[0]} | {cells[1]} | {equal} of {len(found)} |"


def main(words: list[str]) -> int:
    """Print every seed to standard error, then the table."""
    flags = Flags("experiments.red_green", __doc__ or "")
    flags.integer("seeds", 10, "networks a border, at least 2", least=2)
    flags.integer("epochs", 4, "epochs of 2,000 images")
    flags.string("borders", ",".join(BORDERS), "padding rules, comma-separated")
    flags.boolean("bias", "give the convolutions biases")
    if flags.parse(words) is None:
        return 0
    borders = flags.borders.split(",")
    for border in borders:
        spec.find(dict.fromkeys(pads.PADDINGS), border, "border")
    found: dict[str, list[tuple[float, float]]] = {border: [] for border in borders}
    for row in rows(flags.seeds, borders, epochs=flags.epochs, bias=flags.bias):
        print(*row.values(), file=sys.stderr, flush=True)
        found[str(row["border"])].append((float(row["similar"]), float(row["dissimilar"])))
    print("| border | similar | dissimilar | equal on |\n|---|---|---|---|")
    for border, values in found.items():
        print(line(border, np.asarray(values)))
    return 0


if __name__ == "__main__":
    sys.exit(answer("red_green", lambda: main(sys.argv[1:])))

"""Do the statistics keep their promises? Studies in which no arm differs, simulated and analysed.

    python -m cnnjax.study.statistics.simulation            # the table of docs/statistics.md
    table = simulate(seeds=(3, 5, 10, 20), studies=1000)

Every study goes through `family` itself. Arms share each seed's effect, as they do where they share
initial values and batches; the runs' own noise is normal, or that of accuracies near their ceiling:
skewed, and multiples of 1 / images.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from cnnjax.study.statistics.family import ALPHA, family
from cnnjax.study.statistics.images import crossed
from cnnjax.study.statistics.paired import LEAST_FOR_BCA, interval

ARMS, SEEDS, STUDIES, IMAGES = 5, (3, 5, 10, 20), 1000, 200

Noise = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(rng: np.random.Generator, seeds: int, arms: int) -> np.ndarray:
    """Return figures (seeds, arms): an effect of the seed, and of the run, both normal."""
    return 0.9 + 0.02 * rng.normal(size=(seeds, 1)) + 0.01 * rng.normal(size=(seeds, arms))


def ceiling(rng: np.random.Generator, seeds: int, arms: int) -> np.ndarray:
    """Return accuracies (seeds, arms) on 1,000 images of networks that are right at 97 %."""
    logit = 3.5 + 0.3 * rng.normal(size=(seeds, 1)) + 0.15 * rng.normal(size=(seeds, arms))
    return rng.binomial(1000, 1 / (1 + np.exp(-logit))) / 1000


NOISES: dict[str, Noise] = {"normal": normal, "near the ceiling": ceiling}


def null_study(values: np.ndarray) -> pd.DataFrame:
    """Return the runs of a study whose figures (seeds, arms) these are."""
    seeds, arms = values.shape
    cells = itertools.product(range(seeds), range(arms))
    return pd.DataFrame(
        [
            {"seed": s, "pool": f"arm{a}", "accuracy": values[s, a], "status": "done"}
            for s, a in cells
        ]
    )


def simulate(
    seeds: Sequence[int] = SEEDS, studies: int = STUDIES, *, noise: str = "normal"
) -> pd.DataFrame:
    """Return a row a number of seeds, with shares of `studies` null studies of ARMS arms.

    familywise: those with any difference significant after Holm; any_uncorrected: with any p below
    5 %. per_test: of all single tests, uncorrected. coverage: of all intervals, those over zero.
    """
    rows = []
    for n in seeds:
        rng = np.random.default_rng((n, studies))
        p, p_holm, covered = [], [], []
        for _ in range(studies):
            gc.freeze()  # statsmodels' Holm collects all garbage at every call: leave it little
            runs = null_study(NOISES[noise](rng, n, ARMS))
            table = family(runs, ["pool"], metrics=("accuracy",))
            p.append(table["p"])
            p_holm.append(table["p_holm"])
            covered.append((table["low"] <= 0) & (table["high"] >= 0))
        rows.append(
            {
                "n": n,
                "familywise": np.mean(np.min(p_holm, axis=1) < ALPHA),
                "any_uncorrected": np.mean(np.min(p, axis=1) < ALPHA),
                "per_test": np.mean(np.less(p, ALPHA)),
                "coverage": np.mean(covered),
            }
        )
    gc.unfreeze()
    return pd.DataFrame(rows)


def coverage(method: str, seeds: int, studies: int = STUDIES, *, noise: str = "normal") -> float:
    """Return the coverage of one difference's interval; "images": seeds and images both drawn."""
    rng = np.random.default_rng((seeds, studies, 1))
    covered = 0
    for _ in range(studies):
        if method == "images":
            found, _ = crossed(_crossed_noise(rng, seeds))
            low, high = found.low, found.high
        else:
            a, b = NOISES[noise](rng, seeds, 2).T
            low, high = interval(a - b, method=method)
        covered += low <= 0 <= high
    return covered / studies


def _crossed_noise(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Return differences (seeds, IMAGES) in whose mean both have an equal part."""
    seed, image = rng.normal(size=(seeds, 1)), rng.normal(size=(1, IMAGES))
    return seed + image * (IMAGES / seeds) ** 0.5 + rng.normal(size=(seeds, IMAGES))


def main() -> None:
    """Print the tables of docs/statistics.md."""
    for noise in NOISES:
        table = simulate(noise=noise)
        print(f"\nNoise: {noise}; {STUDIES} studies of {ARMS} arms, all pairs.\n")
        print(_markdown(table))
    rows = [
        {"n": n, **{m: coverage(m, n) if n >= least else np.nan for m, least in METHODS.items()}}
        for n in SEEDS
    ]
    print(f"\nCoverage of other intervals, one pair, {STUDIES} studies.\n")
    print(_markdown(pd.DataFrame(rows)))


METHODS = {"bca": LEAST_FOR_BCA, "images": 2}


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns)]
    for row in table.itertuples(index=False):
        lines.append([str(int(row[0])), *("-" if pd.isna(v) else f"{v:.1%}" for v in row[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("%", " %")


if __name__ == "__main__":
    main()

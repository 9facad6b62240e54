"""Test images as a second level beside the seeds, and McNemar's test of two trained networks.

    read = predictions.reader(Store("runs/mine"))
    image_family(runs, by, read)       # seeds and images are both samples
    mcnemar(runs, by, read)            # conditions on the trained networks: says nothing of arms

The paired t test over seeds takes the test images as given: it asks which arm is better on these
images, whatever the seed. `image_family` asks which is better on images like these, whatever the
seed, and its intervals are wider. McNemar's test asks which of two networks, as they were trained,
is better on images like these; another seed would train others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats import contingency_tables

from cnnjax.study.predictions import PER_IMAGE, Predictions
from cnnjax.study.results import distinct
from cnnjax.study.statistics.family import (
    ALPHA,
    COLUMNS,
    Arm,
    Pairs,
    adjusted,
    arm_by_arm,
    correct,
    facts,
    name,
    pair_up,
)
from cnnjax.study.statistics.paired import LEAST_TO_TEST, LEVEL, Paired, examine, no_spread

Read = Callable[[str], Predictions | None]
# Each arm's per-image figures by seed.
Figures = dict[Arm, dict[int, np.ndarray]]


def image_family(
    runs: pd.DataFrame,
    by: Sequence[str],
    read: Read,
    *,
    metrics: Sequence[str] = tuple(PER_IMAGE),
    pairs: Pairs = "one_axis",
    margins: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return the table of `family` with seeds and test images both as samples, and two columns.

    images: how many. image_share: the share of the squared standard error that the choice of images
    adds. Two-way analysis of variance with both factors random, as where several readers judge the
    same cases (Dorfman, Berbaum and Metz 1992; degrees of freedom of Hillis 2007). Seeds whose
    trials kept no predictions are left out; ValueError where arms saw different images.
    """
    rows, margins = [], margins or {}
    found = _read_all(distinct(runs), by, read)
    for metric in metrics:
        figures = _figures(found, metric)
        for a, b in pair_up(list(figures), by, pairs):
            values = _differences(figures[a], figures[b])
            paired, share = crossed(values, margin=margins.get(metric))
            images = {"images": values.shape[1], "image_share": share}
            row = {"metric": metric, "arm_a": name(by, a), "arm_b": name(by, b)}
            given = {"margin": margins.get(metric, math.nan), "note": ""}
            rows.append(row | given | facts(paired) | images)
    return correct(pd.DataFrame(rows, columns=[*COLUMNS, "images", "image_share"]))


def crossed(values: np.ndarray, *, margin: float | None = None) -> tuple[Paired, float]:
    """Return what differences (seeds, images) say when both are samples, and the images' share.

    With fewer than three seeds or two images, or where every seed has the same mean, the images add
    nothing that could be estimated: the answer is that of the seeds alone, the share NaN.
    """
    seeds, images = values.shape
    means = values.mean(axis=1) if images else np.empty(0)
    alone = examine(means, margin=margin)
    if seeds < LEAST_TO_TEST or images < 2 or no_spread(means):
        return alone, math.nan
    rows, columns, rest = _mean_squares(values)
    added = max(columns - rest, 0.0)
    error = math.sqrt((rows + added) / values.size)
    freedom = (seeds - 1) * ((rows + added) / rows) ** 2
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    mean = float(values.mean())
    paired = Paired(
        n=seeds,
        mean=mean,
        sd=alone.sd,
        low=mean - half,
        high=mean + half,
        p=2 * float(stats.t.sf(abs(mean) / error, freedom)),
        effect=alone.effect,
        p_equivalent=math.nan if margin is None else _outside(mean, margin, error, freedom),
    )
    return paired, added / (rows + added)


def _mean_squares(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean squares of rows, columns and their interaction of a table (R, C)."""
    r, c = values.shape
    row, column = values.mean(axis=1), values.mean(axis=0)
    rest = values - row[:, None] - column[None, :] + values.mean()
    squares = (c * row.var(ddof=1), r * column.var(ddof=1), (rest**2).sum() / ((r - 1) * (c - 1)))
    return tuple(map(float, squares))  # type: ignore[return-value]


def _outside(mean: float, margin: float, error: float, freedom: float) -> float:
    above = stats.t.sf((mean + margin) / error, freedom)
    below = stats.t.cdf((mean - margin) / error, freedom)
    return float(max(above, below))


def mcnemar(
    runs: pd.DataFrame, by: Sequence[str], read: Read, *, pairs: Pairs = "one_axis"
) -> pd.DataFrame:
    """Return McNemar's exact test of every pair of arms and seed, on the whole test set.

    only_a and only_b: images that one network alone has right. p conditions on the two trained
    networks of that seed: rows are statements about networks, and seeds must not be pooled.
    """
    found = _read_all(distinct(runs), by, read)
    right = _figures(found, "accuracy")
    rows = []
    for a, b in pair_up(list(right), by, pairs):
        for seed in sorted(set(right[a]) & set(right[b])):
            arms = {"arm_a": name(by, a), "arm_b": name(by, b), "seed": seed}
            rows.append(arms | _discordant(right[a][seed] > 0, right[b][seed] > 0))
    columns = ["arm_a", "arm_b", "seed", "images", "both", "only_a", "only_b", "neither", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        p_holm=adjusted(table["p"], "holm"),
        p_bh=adjusted(table["p"], "fdr_bh"),
        conditions_on=[f"the two trained networks of seed {seed}" for seed in table["seed"]],
    )


def _discordant(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    both, only_a, only_b, neither = (int(np.sum(x)) for x in (a & b, a & ~b, ~a & b, ~a & ~b))
    p = float(contingency_tables.mcnemar([[both, only_a], [only_b, neither]], exact=True).pvalue)
    counts = {"both": both, "only_a": only_a, "only_b": only_b, "neither": neither}
    return {"images": len(a), **counts, "p": p}


def mcnemar_sentences(table: pd.DataFrame) -> list[str]:
    """Return one sentence a row of `mcnemar`, which says what it conditions on."""
    return [
        f"{row['arm_a']} against {row['arm_b']}: the network of seed {row['seed']} is "
        f"{_better(row)} on {row['images']} test images (right alone: {row['only_a']} against "
        f"{row['only_b']}; McNemar p = {row['p_holm']:.3g} after Holm over {len(table)} tests). "
        f"This conditions on {row['conditions_on']} and says nothing of other seeds."
        for row in table.to_dict("records")
    ]


def _better(row: Mapping[Any, Any]) -> str:
    if row["p_holm"] >= ALPHA:
        return "not distinguishable from the other"
    return "more often right" if row["only_a"] > row["only_b"] else "less often right"


def _read_all(
    runs: pd.DataFrame, by: Sequence[str], read: Read
) -> dict[Arm, dict[int, Predictions]]:
    """Return the predictions of every finished run by arm and seed; each file is read once."""
    found: dict[Arm, dict[int, Predictions]] = {}
    done = runs[runs["status"] == "done"]
    for arm, group in arm_by_arm(done, by):
        ids = group["same_as"].where(group["same_as"] != "", group["id"])
        kept = {seed: read(i) for seed, i in zip(group["seed"], ids, strict=True)}
        found[arm] = {seed: p for seed, p in kept.items() if p is not None}
    return found


def _figures(found: Mapping[Arm, Mapping[int, Predictions]], metric: str) -> Figures:
    labels = [p.labels for seeds in found.values() for p in seeds.values()]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        raise ValueError("runs: the arms were tested on different images; compare them over seeds")
    return {arm: {s: p.per_image(metric) for s, p in v.items()} for arm, v in found.items()}


def _differences(a: Mapping[int, np.ndarray], b: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return the differences (seeds, images) over the seeds that both arms have."""
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return np.empty((0, 0))
    return np.stack([a[seed] - b[seed] for seed in seeds])

"""Images as a second level: squares against statsmodels, both limits, predictions on disk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from cnnjax.study.predictions import Predictions, reader
from cnnjax.study.statistics import examine, image_family, mcnemar, mcnemar_sentences
from cnnjax.study.statistics.images import _mean_squares, crossed
from cnnjax.study.statistics.simulation import coverage
from cnnjax.study.store import Store

OFFSETS = np.array([[0, 0], [0, 2], [2, 0]])


def predictions(seed: int, right: float, images: int = 60) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 10
    hit = rng.random((images, len(OFFSETS))) < right
    moved = np.where(hit, labels[:, None], (labels[:, None] + 1) % 10)
    return Predictions(labels, moved[:, 0], moved[:40], OFFSETS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for pool, right in (("max", 0.5), ("aps", 0.95)):
        for seed in range(5):
            found = predictions(100 * len(pool) * seed + int(100 * right), right)
            store.trial(f"{pool}{seed}").save_predictions(found.arrays())
    return store


@pytest.fixture
def runs() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"id": f"{pool}{seed}", "same_as": "", "pool": pool, "seed": seed, "status": "done"}
            for pool in ("max", "aps")
            for seed in range(5)
        ]
    )


def test_predictions_come_back_small(store: Store) -> None:
    found = reader(store)("aps0")
    assert found is not None
    kept = predictions(95, 0.95)
    for name in ("labels", "classes", "moved", "offsets"):
        assert np.array_equal(getattr(found, name), getattr(kept, name))
    assert found.labels.dtype == np.uint8
    thousand = Predictions(np.array([999]), np.array([3]), np.array([[3, 4]]), OFFSETS[:2])
    assert thousand.arrays()["moved"].dtype == np.uint16
    assert (store.trial("aps0").root / "predictions.npz").stat().st_size < 2000
    assert reader(store)("none") is None


def test_per_image_figures() -> None:
    found = Predictions(
        labels=np.array([1, 2, 3]),
        classes=np.array([1, 0, 3]),
        moved=np.array([[1, 1, 0], [0, 2, 2]]),
        offsets=OFFSETS,
    )
    assert found.per_image("accuracy").tolist() == [1, 0, 1]
    assert found.per_image("accuracy_away").tolist() == [0.5, 1]
    assert found.per_image("consistency").tolist() == pytest.approx([1 / 3, 1 / 3])
    with pytest.raises(ValueError, match="metric: expected one of accuracy, "):
        found.per_image("test_loss")


def test_mean_squares_are_those_of_statsmodels() -> None:
    values = np.random.default_rng(0).normal(size=(4, 7)) + np.arange(4)[:, None]
    frame = pd.DataFrame(
        {"y": values.ravel(), "s": np.repeat(range(4), 7), "i": np.tile(range(7), 4)}
    )
    table = anova_lm(ols("y ~ C(s) + C(i)", frame).fit())
    assert _mean_squares(values) == pytest.approx(tuple(table["mean_sq"]))


def test_images_that_are_all_alike_leave_the_paired_test() -> None:
    seeds = np.random.default_rng(0).normal(0.1, 0.1, 5)
    values = np.repeat(seeds[:, None], 50, axis=1)
    found, share = crossed(values, margin=0.5)
    alone = examine(seeds, margin=0.5)
    assert share == 0
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    assert (found.p, found.p_equivalent) == pytest.approx((alone.p, alone.p_equivalent))


def test_seeds_that_are_nearly_alike_leave_a_test_over_images() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(0.1, 1.0, 400)
    values = images[None, :] + 1e-3 * rng.normal(size=(6, 1)) + 1e-4 * rng.normal(size=(6, 400))
    found, share = crossed(values)
    expected = stats.ttest_1samp(images, 0.0).confidence_interval()
    assert share > 0.99
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=0.02)


def test_the_table(store: Store, runs: pd.DataFrame) -> None:
    table = image_family(runs, ["pool"], reader(store), margins={"accuracy": 0.05})
    assert table["metric"].tolist() == ["accuracy", "accuracy_away", "consistency"]
    assert table["images"].tolist() == [60, 40, 40]
    assert table["verdict"].tolist() == ["higher"] * 3
    assert (table["n"] == 5).all() and table["image_share"].between(0, 1).all()
    widths = table["high"] - table["low"]
    read = reader(store)
    for width, metric in zip(widths, table["metric"], strict=True):
        means = [
            [read(f"{p}{s}").per_image(metric).mean() for s in range(5)] for p in ("aps", "max")
        ]
        alone = examine(np.subtract(*means))
        assert alone.mean == pytest.approx(table.set_index("metric").at[metric, "difference"])
        assert width > 0


def test_mcnemar_is_the_binomial_test_of_the_disagreements(
    store: Store, runs: pd.DataFrame
) -> None:
    table = mcnemar(runs, ["pool"], reader(store))
    assert table["seed"].tolist() == [0, 1, 2, 3, 4]
    for row in table.to_dict("records"):
        n = row["only_a"] + row["only_b"]
        assert row["p"] == pytest.approx(stats.binomtest(row["only_a"], n).pvalue)
        assert row["both"] + n + row["neither"] == row["images"] == 60
    words = mcnemar_sentences(table)[0]
    assert "more often right" in words
    assert (
        "conditions on the two trained networks of seed 0 and says nothing of other seeds" in words
    )


def test_networks_that_agree_everywhere(store: Store, runs: pd.DataFrame) -> None:
    same = runs.assign(id=[f"aps{seed}" for seed in runs["seed"]])
    assert (mcnemar(same, ["pool"], reader(store))["p"] == 1.0).all()
    table = image_family(same, ["pool"], reader(store))
    assert set(table["verdict"]) == {"equal in every run"}


def test_trials_without_predictions_and_other_images(store: Store, runs: pd.DataFrame) -> None:
    (store.trial("max0").root / "predictions.npz").unlink()
    table = image_family(runs, ["pool"], reader(store))
    assert table["n"].tolist() == [4, 4, 4]
    runs.loc[runs["pool"] == "max", "status"] = "failed"
    assert image_family(runs, ["pool"], reader(store)).empty
    other = predictions(0, 0.5, images=50)
    store.trial("aps0").save_predictions(other.arrays())
    with pytest.raises(ValueError, match="tested on different images"):
        mcnemar(runs, ["pool"], reader(store))


def test_one_seed_or_one_image() -> None:
    assert math.isnan(crossed(np.ones((1, 5)))[0].p)
    found, share = crossed(np.array([[0.1], [0.2], [0.4]]))
    assert math.isnan(share) and found.n == 3
    assert crossed(np.empty((0, 0)))[0].n == 0


def test_coverage_where_both_count() -> None:
    assert coverage("images", 5, 400) == pytest.approx(0.95, abs=0.035)

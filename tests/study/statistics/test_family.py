"""Tables of comparisons: pairs, corrections and their definitions, verdicts, degenerate runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cnnjax.study.statistics import correct, family, ranking, sentences
from cnnjax.study.statistics.family import COLUMNS

BY = ["pool", "stride"]


def study(means: dict[tuple[str, int], float], *, seeds: int = 5, sd: float = 0.01) -> pd.DataFrame:
    """Runs of arms with these accuracies; a seed moves all of them alike."""
    rng = np.random.default_rng(7)
    shared = rng.normal(0, 0.05, seeds)
    rows: list[dict[str, Any]] = []
    for (pool, stride), mean in means.items():
        for seed in range(seeds):
            own = {"pool": pool, "stride": stride, "seed": seed, "status": "done", "same_as": ""}
            value = mean + shared[seed] + sd * rng.normal()
            rows.append({"id": f"{pool}{stride}{seed}", **own, "accuracy": value})
    return pd.DataFrame(rows)


def table(runs: pd.DataFrame, **options: Any) -> pd.DataFrame:
    return family(runs, BY, metrics=("accuracy",), **options)


FOUR = {("max", 2): 0.80, ("max", 3): 0.70, ("aps", 2): 0.90, ("aps", 3): 0.905}


def test_a_row_is_the_paired_test_of_scipy() -> None:
    runs = study(FOUR)
    found = table(runs)
    assert tuple(found.columns) == COLUMNS
    for row in found.to_dict("records"):
        a, b = (
            runs.query("pool == @pool and stride == @stride")["accuracy"].to_numpy()
            for pool, stride in (
                (words[1], int(words[3]))
                for words in (row[k].replace(",", "").split() for k in ("arm_a", "arm_b"))
            )
        )
        expected = stats.ttest_rel(a, b)
        assert row["p"] == pytest.approx(expected.pvalue)
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))
        assert row["difference"] == pytest.approx(np.mean(a - b))


def test_pairs() -> None:
    runs = study(FOUR)

    def pairs(**options: Any) -> list[tuple[str, str]]:
        found = table(runs, **options)
        return list(zip(found["arm_a"], found["arm_b"], strict=True))

    assert len(pairs(pairs="all")) == 6
    assert pairs() == [
        ("pool max, stride 3", "pool max, stride 2"),
        ("pool aps, stride 2", "pool max, stride 2"),
        ("pool aps, stride 3", "pool max, stride 3"),
        ("pool aps, stride 3", "pool aps, stride 2"),
    ]
    assert pairs(pairs={"pool": "max"}) == [
        ("pool aps, stride 2", "pool max, stride 2"),
        ("pool aps, stride 3", "pool max, stride 3"),
    ]
    assert len(pairs(pairs={"pool": "max", "stride": 2})) == 3


def test_corrections_against_their_definitions() -> None:
    found = table(study(FOUR, sd=0.1), pairs="all")
    p = np.sort(found["p"].to_numpy())
    m = len(p)
    holm = np.minimum(1, np.maximum.accumulate(p * (m - np.arange(m))))
    assert np.sort(found["p_holm"]) == pytest.approx(holm)
    bh = np.minimum.accumulate((p * m / (1 + np.arange(m)))[::-1])[::-1]
    assert np.sort(found["p_bh"]) == pytest.approx(np.minimum(1, bh))


def test_the_family_is_the_whole_table() -> None:
    found = table(study(FOUR, sd=0.1), pairs="all")
    twice = correct(pd.concat([found, found.assign(metric="consistency")]))
    assert (twice["p_holm"].to_numpy()[:6] >= found["p_holm"].to_numpy()).all()
    assert twice["p_holm"].min() == pytest.approx(min(1, 12 * found["p"].min()))


def test_verdicts() -> None:
    found = table(study(FOUR, sd=0.003), margins={"accuracy": 0.03})
    assert found["verdict"].tolist() == ["lower", "higher", "higher", "equivalent"]
    assert found["equivalent"].tolist() == [False, False, False, True]
    words = sentences(found)
    assert "pool aps, stride 2 against pool max, stride 2: higher in accuracy" in words[1]
    assert "after Holm over 4 comparisons" in words[1]
    assert "equivalent within ±0.03" in words[3]


def test_few_seeds_name_no_winner() -> None:
    for seeds in (1, 2):
        found = table(study(FOUR, seeds=seeds, sd=0.01))
        assert set(found["verdict"]) == {"not distinguishable"}
        assert all("not distinguishable" in line for line in sentences(found))


def test_significant_alone_is_not_significant_in_a_family() -> None:
    rows = pd.DataFrame({"p": [0.03, 0.5, 0.9], "p_equivalent": math.nan})
    rows = rows.assign(n=5, low=0.1, high=0.2, difference=0.15)
    assert set(correct(rows)["verdict"]) == {"not distinguishable"}
    assert correct(rows.head(1))["verdict"].tolist() == ["higher"]


def test_failed_and_endless_runs_leave_their_seed_out() -> None:
    runs = study({("max", 2): 0.8, ("aps", 2): 0.9}, seeds=6)
    whole = table(runs)
    runs.loc[(runs["pool"] == "max") & (runs["seed"] == 0), "status"] = "failed"
    runs.loc[(runs["pool"] == "aps") & (runs["seed"] == 1), "accuracy"] = math.nan
    runs.loc[(runs["pool"] == "aps") & (runs["seed"] == 2), "accuracy"] = math.inf
    runs = runs[~((runs["pool"] == "aps") & (runs["seed"] == 3))]
    found = table(runs)
    assert found["n"].item() == 2 and whole["n"].item() == 6
    assert "4 of 6 seeds left out" in found["note"].item()
    kept = runs[runs["seed"] >= 4]
    assert table(kept)["difference"].item() == found["difference"].item()


def test_an_arm_that_always_fails_stays_in_the_table_and_out_of_the_family() -> None:
    runs = study(FOUR)
    runs.loc[runs["pool"] == "aps", "status"] = "failed"
    found = table(runs, pairs="all")
    assert found["n"].tolist().count(0) == 5
    assert found["p"].notna().sum() == 1
    assert found["p_holm"].dropna().tolist() == found["p"].dropna().tolist()
    assert "no seed has both arms" in sentences(found)[-1]


def test_the_same_function_is_not_compared_twice() -> None:
    runs = study({("max", 1): 0.8, ("decimate", 1): 0.7, ("aps", 1): 0.7})
    twin = runs["pool"] == "aps"
    runs.loc[twin, "same_as"] = [f"decimate1{seed}" for seed in range(5)]
    found = table(runs)
    assert found["arm_a"].tolist() == ["pool decimate, stride 1"]
    alone = table(runs[runs["pool"] != "decimate"])  # its twin is in no other row: it is an arm
    assert alone["arm_a"].tolist() == ["pool aps, stride 1"]


def test_equal_in_every_run() -> None:
    runs = study({("max", 1): 0.8, ("aps", 1): 0.8}).assign(accuracy=1.0)
    found = table(runs)
    assert found["verdict"].item() == "equal in every run"
    assert (found["p"].item(), found["low"].item(), found["high"].item()) == (1.0, 0.0, 0.0)


def test_arms_must_be_told_apart() -> None:
    with pytest.raises(ValueError, match="by: pool does not tell the runs of pool max apart"):
        family(study(FOUR), ["pool"], metrics=("accuracy",))
    with pytest.raises(ValueError, match="metric: did you mean accuracy"):
        family(study(FOUR), BY, metrics=("acuracy",))
    with pytest.raises(ValueError, match="pairs: expected one_axis, all or a mapping"):
        table(study(FOUR), pairs="some")
    with pytest.raises(ValueError, match="pairs: unknown name 'pol'; did you mean pool"):
        table(study(FOUR), pairs={"pol": "max"})


def test_a_grid_of_one_arm_has_no_comparison() -> None:
    found = table(study({("max", 2): 0.8}))
    assert len(found) == 0 and tuple(found.columns) == COLUMNS
    assert sentences(found) == []


def test_ranking_leaves_open_what_the_data_leave_open() -> None:
    ranks = ranking(study(FOUR, seeds=8, sd=0.01), BY, "accuracy")
    assert ranks["arm"].tolist()[2:] == ["pool max, stride 2", "pool max, stride 3"]
    assert ranks["rank_low"].tolist() == [1, 1, 3, 4]
    assert ranks["rank_high"].tolist() == [2, 2, 3, 4]
    backwards = ranking(study(FOUR, seeds=8, sd=0.01), BY, "accuracy", lower_is_better=True)
    assert backwards["arm"].tolist() == ranks["arm"].tolist()[::-1]
    assert backwards["rank_low"].tolist() == [1, 2, 3, 3]
    one = ranking(study(FOUR, seeds=1), BY, "accuracy")
    assert set(one["rank_low"]) == {1} and set(one["rank_high"]) == {4}


def test_ranks_of_arms_that_failed() -> None:
    runs = study(FOUR, seeds=8, sd=0.001)
    runs.loc[(runs["pool"] == "max") & (runs["stride"] == 3), "status"] = "failed"
    last = ranking(runs, BY, "accuracy").iloc[-1]
    assert (last["arm"], last["n"]) == ("pool max, stride 3", 0)
    assert (last["rank_low"], last["rank_high"]) == (1, 4)

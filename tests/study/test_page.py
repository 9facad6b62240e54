"""Pages of studies: what they print follows from the record beside them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnnjax.cli.study import load
from cnnjax.config import Config
from cnnjax.study import page
from cnnjax.study.grid import Contrast, Study

DOCS = Path(__file__).parents[2] / "docs" / "studies"
STUDY = Study(
    name="tiny",
    question="?",
    base=Config(),
    axes={"pool": ("max", "aps"), "window": (2, 3), "stride": (2, 2), "seed": (0, 1, 2)},
    zipped=(("window", "stride"),),
    contrast=Contrast("consistency", {"pool": "aps"}, {"pool": "max"}, expected=1, source="X 2000"),
)


def runs() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": f"{pool}{window}{seed}",
            "same_as": "",
            "status": "done",
            "reason": "",
            "pool": pool,
            "window": window,
            "stride": 2,
            "seed": seed,
            "parameters": 9,
            "accuracy": 0.9,
            "accuracy_away": rng.normal(0.5, 0.01),
            "seconds": 1.0,
            "consistency": 0.5 + 0.3 * (pool == "aps") + 0.001 * window + rng.normal(0, 1e-4),
        }
        for pool, window, seed in itertools.product(("max", "aps"), (2, 3), range(3))
    ]
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_tables_say_which_factor_decides(tmp_path: Path) -> None:
    text = page.tables(STUDY, runs())
    assert "| aps | 3 | 2 | 0.900 ± 0.000 |" in text
    pool = next(line for line in text.splitlines() if line.startswith("| pool | -"))
    assert "| 100 % [100 %, 100 %]* |" in pool
    window = "| window 3, stride 2 against window 2, stride 2 | +0.001 |"
    assert window in text
    assert "Expected higher (X 2000): met." in text.splitlines()[-1]
    path = tmp_path / "record.csv"
    page.record(STUDY, runs()).to_csv(path, index=False)
    assert page.tables(STUDY, page.read(path)) == text


@pytest.mark.slow
def test_each_data_set_has_its_own_tables() -> None:
    both = [runs().assign(dataset=name) for name in ("digits", "mnist")]
    study = STUDY.changed({"dataset": ("digits", "mnist")})
    text = page.tables(study, pd.concat(both, ignore_index=True))
    assert text.count("### ") == 2
    assert text.count("| pool aps against pool max |") == 2
    assert "| dataset" not in text


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(DOCS.glob("*.csv")), ids=lambda path: path.stem)
def test_pages_follow_from_their_records(path: Path) -> None:
    """Every line of the tables stands in the page."""
    text = path.with_suffix(".md").read_text()
    study, found = load(path.stem), page.read(path)
    missing = [line for line in page.tables(study, found).splitlines() if line not in text]
    assert not missing, missing[0]
    assert set(found["id"]) == {trial.id for trial in study.trials()}

"""cnnjax.results: frames of a study or a trial, the texts of the documentation, mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

import cnnjax
from cnnjax.bench import many
from cnnjax.config import to_dict, trial_id
from cnnjax.study.grid import Study
from cnnjax.study.predictions import Predictions
from cnnjax.study.results import storable, write_tables
from cnnjax.study.rows import failed, header
from cnnjax.study.store import Store

ROOT = Path(__file__).resolve().parent.parent
STUDY = replace(
    many.STUDY,
    axes={"pool": ("max", "decimate", "aps"), "stride": (1, 2), "seed": (0, 1)},
    contrast=None,
)
FIRST = STUDY.trials()[0]


def kept(seed: int) -> Predictions:
    """Classes of 6 images where they stand, of the first 4 at 9 places."""
    rng = np.random.default_rng(seed)
    offsets = np.array([[dy, dx] for dy in (-2, 0, 2) for dx in (-2, 0, 2)], np.int16)
    classes, moved = rng.integers(0, 3, 6), rng.integers(0, 3, (4, 9))
    moved[:, 4] = classes[:4]
    return Predictions(rng.integers(0, 3, 6), classes, moved, offsets)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished study in which one trial failed and one kept predictions."""
    many.write(tmp_path / "study", STUDY)
    store = Store(tmp_path / "study")
    bad = STUDY.trials()[3]
    store.trial(bad.id).finish(failed(bad.config, "diverged: the loss is nan"))
    store.trial(FIRST.id).save_predictions(kept(0).arrays())
    return store.root


def test_runs_are_the_rows_of_runs_csv(out: Path) -> None:
    found = cnnjax.results.load(out)
    write_tables(Store(out), STUDY.trials())
    written = pd.read_csv(out / "runs.csv", keep_default_na=False, na_values=["", "nan"])
    assert len(found.runs) == 12 and found.runs["id"].is_unique
    for name in ("id", "status", "pool", "stride", "accuracy", "consistency", "seconds"):
        assert found.runs[name].tolist() == pytest.approx(written[name].tolist(), nan_ok=True)
    twins = found.runs[found.runs["same_as"] != ""]
    assert twins[["pool", "stride"]].drop_duplicates().values.tolist() == [["aps", 1]]
    for _, row in twins.iterrows():
        (own,) = found.runs.loc[found.runs["id"] == row["same_as"], "accuracy"]
        assert row["accuracy"] == own
    (bad,) = found.runs.loc[found.runs["status"] == "failed", "reason"]
    assert bad == "diverged: the loss is nan"


def test_results_agree_with_the_files(out: Path) -> None:
    found = cnnjax.results.load(out)
    rows = found.runs.set_index("id")
    for path in (out / "trials").glob("*/result.json"):
        result = json.loads(path.read_text())
        for name, value in result.get("metrics", {}).items():
            assert rows.loc[result["id"], name] == value
    for path in (out / "trials").glob("*/metrics.jsonl"):
        curve = found.epochs[found.epochs["id"] == path.parent.name]
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        wide = curve.pivot(index="epoch", columns="name", values="value").reset_index()
        assert wide[list(lines[0])].to_dict("records") == lines


def test_predictions_give_the_figures_again(out: Path) -> None:
    found, own = cnnjax.results.load(out), kept(0)
    table = found.predictions()
    assert table["id"].unique().tolist() == [FIRST.id]
    assert len(table) == 6 + 4 * 8 and list(table) == [
        *("id", "image", "dy", "dx", "label", "predicted")
    ]
    right = table["label"] == table["predicted"]
    stands = (table["dy"] == 0) & (table["dx"] == 0)
    assert right[stands].mean() == own.per_image("accuracy").mean()
    assert right[~stands].mean() == own.per_image("accuracy_away").mean()
    place = (table["dy"] == -2) & (table["dx"] == 2)  # up and to the right: the third offset
    assert table.loc[place, "predicted"].tolist() == own.moved[:, 2].tolist()
    moved = table[table["image"] < 4].pivot(index="image", columns=["dy", "dx"], values="predicted")
    assert np.array_equal(np.sort(moved, axis=1), np.sort(own.moved, axis=1))
    assert found.predictions([STUDY.trials()[1].id]).empty
    with pytest.raises(ValueError, match="id: unknown name 'nobody'"):
        found.predictions(["nobody"])


def test_trials_of_an_earlier_grid_come_after(out: Path) -> None:
    other = replace(FIRST.config, seed=7)
    store = Store(out)
    store.trial(trial_id(other)).finish(header(other) | many.result(np.random.default_rng(1)))
    runs = cnnjax.results.load(out).runs
    assert len(runs) == 13 and runs["id"].iloc[-1] == trial_id(other) and runs["seed"].iloc[-1] == 7


def test_a_running_study_has_the_curves_of_unfinished_trials(out: Path) -> None:
    (out / "trials" / FIRST.id / "result.json").unlink()
    found = cnnjax.results.load(out)
    assert FIRST.id not in set(found.runs["id"])
    assert (found.epochs["id"] == FIRST.id).sum() == 2 * many.EPOCHS


def test_one_trial_alone(out: Path) -> None:
    found = cnnjax.results.load(out / "trials" / FIRST.id)
    whole = cnnjax.results.load(out)
    (row,) = found.runs.to_dict("records")
    assert row["id"] == FIRST.id
    assert row["accuracy"] == whole.runs.set_index("id").loc[FIRST.id, "accuracy"]
    assert len(found.epochs) == 2 * many.EPOCHS
    assert len(found.predictions([FIRST.id])) == len(found.predictions()) == 38


def test_mistakes_are_one_clear_line(out: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty"):
        with pytest.raises(FileNotFoundError, match=f"{place}: neither a study nor a trial here$"):
            cnnjax.results.load(tmp_path / place)
    config = to_dict(FIRST.config) | {"seed": 99}
    store = Store(out)
    store.trial("of_the_future").finish({"config": config | {"warp": 9}, **many.result(RNG)})
    with pytest.raises(ValueError, match=r"trials/of_the_future: of another version.*'warp'"):
        cnnjax.results.load(out)
    study = json.loads((out / "study.json").read_text())
    (out / "study.json").write_text(json.dumps(study | {"base": {"warp": 9}}))
    with pytest.raises(ValueError, match=r"study: of another version of cnnjax \(.*'warp'"):
        cnnjax.results.load(out)
    (out / "study.json").write_text(json.dumps(study | {"format": 99}))
    with pytest.raises(FileExistsError, match=r"another version of cnnjax \(format 99"):
        cnnjax.results.load(out)


RNG = np.random.default_rng(2)


def test_importing_cnnjax_imports_neither_pandas_nor_jax() -> None:
    code = "import sys, cnnjax; cnnjax.__all__.index('results'); print('pandas' in sys.modules)"
    code += "; import cnnjax.results as r; print(r is cnnjax.results)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([3, 2, "-"], [3, 2, None]),
        ([3, None, "-"], [3, None, None]),
        ([0.5, None, 1], [0.5, None, 1.0]),
        (["3x2", 2, "-"], ["3x2", "2", None]),
        ([None, None], [None, None]),
        (["zeros", None], ["zeros", None]),
        ([True, "-"], [True, None]),
    ],
)
def test_numbers_stay_numbers_in_parquet(tmp_path: Path, values: list, stored: list) -> None:
    column = storable(pd.Series(values, dtype=object))
    column.to_frame("x").to_parquet(tmp_path / "x.parquet")
    back = pd.read_parquet(tmp_path / "x.parquet")["x"]
    assert [None if pd.isna(v) else v for v in back] == stored


def texts(kind: str) -> list[str]:
    """Return the blocks of this language under `Results as tables` in docs/study_files.md."""
    page = (ROOT / "docs" / "study_files.md").read_text()
    section = page[page.index("## Results as tables") :]
    return re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up run of the default study where the documentation has it."""
    place = tmp_path / "runs" / "pooling_and_stride"
    small: Study = replace(STUDY, name="pooling_and_stride")
    many.write(place, small)
    write_tables(Store(place), small.trials())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_three_lines_to_a_figure(there: Path) -> None:
    matplotlib.use("agg")
    (lines,) = texts("python")
    assert sum(map(bool, lines.splitlines())) == 3
    exec(lines, {})
    assert (there / "mine.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.extra
def test_the_query(there: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    (query,) = texts("sql")
    rows = duckdb.sql(query).fetchall()
    runs = cnnjax.results.load("runs/pooling_and_stride").runs
    means = runs[runs["window"] != "-"].groupby(["pool", "stride"])["consistency"].mean()
    assert [row[:2] for row in rows] == list(means.index)
    assert [row[2] for row in rows] == pytest.approx(list(means))

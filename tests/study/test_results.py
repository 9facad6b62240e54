"""Tables: aliases carry their twin's numbers, failures stay visible, files agree."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from cnnjax.config import Config, to_dict, trial_id
from cnnjax.study import figures, report, results
from cnnjax.study.grid import Study
from cnnjax.study.store import Store
from cnnjax.study.table import cells, print_table, spread

STUDY = Study(
    name="tiny_grid",
    question="Is <this> escaped?",
    base=Config(window=3, padding="CIRCULAR", head="gap"),
    axes={"pool": ("max", "decimate", "aps"), "stride": (1, 2), "seed": (0, 1)},
)


def result(config: Config, accuracy: float) -> dict[str, Any]:
    offsets = [[i, j] for i in (-2, 0, 2) for j in (-2, 0, 2)]
    return {
        "id": trial_id(config),
        "config": to_dict(config),
        "status": "done",
        "metrics": {
            "accuracy": accuracy,
            "accuracy_away": accuracy / 2,
            "consistency": accuracy / 4,
            "test_images": 9,
            "shifted_images": 9,
        },
        "places": {"offsets": offsets, "accuracy": [accuracy] * 9, "boundary": "zeros"},
        "data_sha256": "d" * 64,
        "seconds": 1.0,
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A finished study in which every run of max at stride 2 failed."""
    store = Store(tmp_path)
    for config in {trial_id(t.runs): t.runs for t in STUDY.trials()}.values():
        files = store.trial(trial_id(config))
        files.start(to_dict(config), {"jax": "0.0", "commit": "abc"})
        files.log({"epoch": 1, "loss": 2.0})
        if config.pool == "max" and config.stride == 2:
            files.finish({**result(config, 0.0), "status": "failed", "reason": "diverged: <nan>"})
        else:
            files.finish(result(config, 0.5 + 0.1 * config.seed))
    return store


def test_aliases_carry_their_twins_numbers(store: Store) -> None:
    runs = results.write_tables(store, STUDY.trials())
    assert len(runs) == 12
    aps = runs[(runs["pool"] == "aps") & (runs["stride"] == 1)]
    twin = runs[(runs["pool"] == "decimate") & (runs["stride"] == 1)]
    assert aps["same_as"].tolist() == twin["id"].tolist()
    assert aps["accuracy"].tolist() == twin["accuracy"].tolist() == [0.5, 0.6]
    assert set(runs[runs["pool"] == "aps"]["window"]) == {"-"}


def test_files_agree(store: Store) -> None:
    runs = results.write_tables(store, STUDY.trials())
    columns = ["id", "accuracy", "consistency"]
    for back in (
        pd.read_csv(store.root / "runs.csv"),
        pd.read_parquet(store.root / "runs.parquet"),
    ):
        pd.testing.assert_frame_equal(back[columns], runs[columns], check_dtype=False)
    long = pd.read_parquet(store.root / "metrics.parquet")
    assert set(long["id"]) == {trial_id(t.runs) for t in STUDY.trials()}
    assert set(long["name"]) == {"loss"}


def test_columns_do_not_collide(store: Store) -> None:
    runs = results.write_tables(store, STUDY.trials())
    assert runs.columns.is_unique
    assert not set(result(Config(), 0.5)["metrics"]) & set(to_dict(Config()))


def test_the_table_shows_spread_n_and_failures(store: Store) -> None:
    runs = results.write_tables(store, STUDY.trials())
    header, rows = cells(runs, ["pool", "stride"])
    table = {tuple(row[:2]): row[2:] for row in rows}
    assert header[-1] == "n"
    assert table["decimate", "1"] == ["0.550 ± 0.071", "0.275 ± 0.035", "0.138 ± 0.018", "2"]
    assert table["max", "2"][0] == "failed: diverged: <nan>"
    assert table["max", "2"][-1] == "0"
    assert spread(0.5, float("nan")) == "0.500"


def test_a_field_left_as_published_is_told_as_its_flag_has_it() -> None:
    runs = pd.DataFrame({"norm": [None, "none"], "status": "done", "reason": ""})
    _, rows = cells(runs.assign(**dict.fromkeys(results.HEADLINES, 0.5)), ["norm"])
    assert [row[0] for row in rows] == ["default", "none"]
    assert results.words((3, 2)) == "3x2"


def test_long_values_tell_arms_apart_on_the_terminal_and_in_figures() -> None:
    widths = ["x".join(["16"] * count) for count in (6, 20)]
    runs = pd.DataFrame({"widths": widths, "status": "done", "reason": "", "id": ["a", "b"]})
    runs = runs.assign(same_as="", norm=[None, "none"], **dict.fromkeys(results.HEADLINES, 0.5))
    shown_on = io.StringIO()
    print_table(runs, by=["widths"], console=Console(width=60, file=shown_on))
    shown = shown_on.getvalue()
    assert shown.count("16") == 26 and "\u2026" not in shown
    found: dict[str, Any] = {"a": {}, "b": {}}
    labels = figures.draw(runs, found, by=["widths"])["accuracy_against_consistency"]
    _, texts = labels.axes[0].get_legend_handles_labels()
    assert [text.replace("\n", "") for text in texts] == widths
    assert max(len(line) for text in texts for line in text.split("\n")) <= 24
    labels = figures.draw(runs, found, by=["norm"])["accuracy_against_consistency"]
    assert labels.axes[0].get_legend_handles_labels()[1] == ["default", "none"]


def test_distance_curve() -> None:
    places = {"offsets": [[0, 0], [1, 0], [0, -1], [2, 1]], "accuracy": [1.0, 0.5, 0.7, 0.2]}
    distance, accuracy = figures.distance_curve(places)
    assert distance.tolist() == [0, 1, 2]
    assert accuracy.tolist() == [1.0, 0.6, 0.2]


def test_an_arm_whose_twin_is_not_in_the_grid(store: Store) -> None:
    """aps at stride 1 ran as decimation: it is reported as itself, and nothing is shown twice."""
    study = STUDY.changed({"pool": ("aps",), "stride": (1,)})
    trials = study.trials()
    runs = results.write_tables(store, trials)
    found = store.results(t.same_as or t.id for t in trials)
    page = report.write(store, study, runs, found).read_text()
    assert "shown twice" not in page
    assert "2 s over 2 trials" in page and "abc" in page
    assert report.notes(runs, ["pool"]) == []


def test_runs_with_several_grids_are_drawn_by_distance() -> None:
    """As where a third axis is the data set: what one distance has is averaged, no more."""
    rows = [{"id": i, "same_as": None, "pool": "max"} for i in ("a", "b")]
    near = {"offsets": [[0, 0], [0, 2]], "accuracy": [1.0, 0.5]}
    far = {"offsets": [[0, 0], [0, 2], [0, 9], [9, 0]], "accuracy": [0.5, 0.5, 0.25, 0.75]}
    found = {"a": {"places": near}, "b": {"places": far}}
    runs = pd.DataFrame(rows)
    line = figures.by_distance(runs, found, "pool", None).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[0.0, 0.75], [2.0, 0.5], [9.0, 0.5]]
    square = {"offsets": [[0, 0], [0, 2], [2, 0], [2, 2]], "accuracy": [1.0, 0.5, 0.5, 0.0]}
    found["a"] = {"places": square}
    image = figures.over_canvas(runs, found, "pool", None).axes[0].images[0]
    assert image.get_array().tolist() == [[1.0, 0.5], [0.5, 0.0]]


def test_a_single_axis_has_rows_too(store: Store) -> None:
    """An index of one level is keyed by values, not by tuples."""
    runs = results.write_tables(store, STUDY.trials())
    _, rows = cells(runs[runs["status"] == "done"], ["pool"])
    assert rows
    assert all("failed" not in cell for row in rows for cell in row)
    assert all(int(row[-1]) > 0 for row in rows)

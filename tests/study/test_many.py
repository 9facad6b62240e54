"""Studies of many trials: each file read once, memory flat; clocks that jump, several writers."""

from __future__ import annotations

import collections
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cnnjax
from cnnjax.bench import many
from cnnjax.cli import main
from cnnjax.study.finished import Finished
from cnnjax.study.grid import Study
from cnnjax.study.run import check, conclude, plan, run_study
from cnnjax.study.store import Store

SMALL = replace(
    many.STUDY, axes={"pool": ("max", "decimate", "aps"), "stride": (1, 2), "seed": (0, 1)}
)
OPENED: collections.Counter[Path] = collections.Counter()
WATCHED: list[Path] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not WATCHED or not isinstance(arguments[0], (str, bytes)):
        return
    path = Path(os.fsdecode(arguments[0]))
    flags = arguments[2]
    if WATCHED[0] in path.parents and isinstance(flags, int) and not flags & os.O_WRONLY:
        OPENED[path] += 1


sys.addaudithook(_note)  # for good: the interpreter takes none back


def reads(root: Path, act: Callable[[], object]) -> collections.Counter[str]:
    """Return how often each kind of a trial's files is read; no result is read twice."""
    OPENED.clear()
    WATCHED[:] = [root / "trials"]
    try:
        act()
    finally:
        WATCHED.clear()
    assert {n for path, n in OPENED.items() if path.name == "result.json"} <= {1}
    return sum((collections.Counter({p.name: n}) for p, n in OPENED.items()), collections.Counter())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    many.write(tmp_path / "study", SMALL)
    return tmp_path / "study"


def ways(root: Path, study: Study) -> dict[str, Callable[[], object]]:
    return {
        "list": lambda: plan(check(study, Store(root)), Store(root)),
        "resume": lambda: run_study(study, root),
        "report": lambda: conclude(Store(root), study, study.trials()),
        "load": lambda: cnnjax.results.load(root),
    }


RESUME = pytest.param("resume", marks=pytest.mark.slow)


@pytest.mark.parametrize("way", ["list", RESUME, "report", "load"])
def test_each_file_is_read_once(root: Path, way: str) -> None:
    found = reads(root, ways(root, SMALL)[way])
    assert found["result.json"] == 10  # 12 cells, 2 of which are the same function as others
    # Learning curves are read for metrics.parquet and for the page.
    assert found["metrics.jsonl"] == {"list": 0, "resume": 20, "report": 20, "load": 10}[way]
    assert found["config.json"] == 0


def test_a_dry_run_reads_each_result_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cnnjax.cli.study.load", lambda name: SMALL)
    words = ["study", "mine", "--dry_run", f"--out={root}"]
    assert reads(root, lambda: main(words))["result.json"] == 10
    assert "0 of 12 trials to run" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("way", ["resume", "load"])
def test_ten_thousand_trials(way: str) -> None:
    root = many.directory(10_000)
    act = ways(root, many.study(10_000))[way]
    assert reads(root, act)["result.json"] == 9_500  # aps at stride 1 is decimate
    assert many.most_bytes(act) < 250e6


def test_results_are_held_small_and_whole(root: Path) -> None:
    store, ids = Store(root), [trial.owner for trial in SMALL.trials()]
    finished = Finished(store)
    finished.read(ids)
    whole = store.results(ids)
    assert dict(finished) == {
        name: {k: v for k, v in result.items() if k != "config"} for name, result in whole.items()
    }
    offsets = {id(result["places"]["offsets"]) for result in finished.values()}
    assert len(offsets) == 1
    before = dict(finished)
    finished.read(ids)
    assert all(finished[name] is result for name, result in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("year", [1971, 2100])
def test_files_of_another_time_are_as_good(
    root: Path, year: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumped, or another machine's is wrong: nothing looks at when a file was written."""
    before = cnnjax.results.load(root)
    (root / ".lock").touch()
    then = (year - 1970) * 365.25 * 86400
    for path in [root, *root.rglob("*")]:
        os.utime(path, (then, then))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    outcome = run_study(SMALL, root)
    assert outcome.failed == 0 and len(outcome.runs) == 12
    after = cnnjax.results.load(root)
    assert after.runs.equals(before.runs) and after.epochs.equals(before.epochs)


def test_durations_come_from_a_clock_that_does_not_jump() -> None:
    source = Path(cnnjax.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text()
        assert "time.time()" not in text and "datetime.now" not in text, path


@pytest.mark.slow
def test_two_studies_at_once_in_one_directory(root: Path) -> None:
    with Store(root).lock(), pytest.raises(BlockingIOError, match="in use by a running"):
        run_study(SMALL, root)
    assert run_study(SMALL, root).failed == 0


def test_another_study_leaves_what_is_there(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    with pytest.raises(FileExistsError, match="belongs to another study"):
        run_study(replace(SMALL, name="another"), root)
    with pytest.raises(FileExistsError, match="other fixed choices"):
        run_study(replace(SMALL, base=replace(SMALL.base, lr=0.5), axes=SMALL.axes), root)
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == before


def test_a_result_of_another_version_is_not_taken_for_this_ones(root: Path) -> None:
    name = SMALL.trials()[0].id
    result = many.result(np.random.default_rng(0)) | {"id": name, "config": {"warp": 9}}
    Store(root).trial(name).finish(result)
    with pytest.raises(FileExistsError, match=f"trials/{name} holds another trial's result"):
        run_study(SMALL, root)

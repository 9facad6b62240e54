"""Files of a study: whole or not at all, one writer, one owner."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnjax.study import store as stores
from cnnjax.study.store import Store, TrialFiles, read_json, read_lines, write_json

STUDY: dict[str, Any] = {"name": "mine", "fixed": {"epochs": 3}, "axes": {"stride": [1]}}


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*result\.json"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_file_appears_only_once_it_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = tmp_path / "result.json", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("flush"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    write_json(path, {})
    assert order == ["flush", "rename"]


def test_half_a_result_is_none(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    assert files.result() is None
    files.finish({"metrics": {"accuracy": 0.5}})
    whole = (tmp_path / "result.json").read_text()
    for length in range(len(whole) - 2):
        (tmp_path / "result.json").write_text(whole[:length])
        assert files.result() is None
    (tmp_path / "result.json").write_bytes(b"\xff\xfe\x00")
    assert files.result() is None


def test_a_torn_last_line_is_dropped_and_a_torn_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert read_lines(path) == [{"epoch": 1}, {"epoch": 2}]
    path.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_lines(path)
    assert read_lines(tmp_path / "absent.jsonl") == []


def test_starting_again_drops_the_interrupted_try(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path / "t")
    files.start({"seed": 1}, {"jax": "x"})
    files.log({"epoch": 1})
    files.start({"seed": 1}, {"jax": "x"})
    files.log({"epoch": 1})
    assert files.metrics() == [{"epoch": 1}]
    assert files.config() == {"seed": 1}
    assert files.env() == {"jax": "x"}


def test_variables_round_trip(tmp_path: Path) -> None:
    files = TrialFiles(tmp_path)
    with pytest.raises(FileNotFoundError, match="no trained variables"):
        files.variables()
    arrays = {"params/conv/kernel": np.arange(6.0).reshape(2, 3), "params/bias": np.zeros(3)}
    files.save_variables(arrays)
    back = files.variables()
    assert list(back) == list(arrays)
    assert all((back[name] == arrays[name]).all() for name in arrays)


def test_a_directory_belongs_to_one_study(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    with store.lock():
        store.claim(STUDY)
        store.claim({**STUDY, "axes": {"stride": [1, 2, 3]}})  # a grid may grow
        assert store.description()["axes"] == {"stride": [1, 2, 3]}
        seeded = {"fixed": {**STUDY["fixed"], "seed": 3}, "axes": {"stride": [1, 2]}}
        # Along what was one value, and back to one.
        store.claim({**STUDY, "axes": {"stride": [1, 2], "seed": [3, 4]}})
        store.claim({**STUDY, **seeded})
        store.claim({**STUDY, "axes": {"stride": [1, 2, 3], "seed": [3]}})
        for other in ({"name": "other"}, {"fixed": {"epochs": 4}}):
            with pytest.raises(FileExistsError, match="belongs to another study"):
                store.claim({**STUDY, **other})
        (store.root / "study.json").write_text("{")
        with pytest.raises(FileExistsError, match="belongs to another study"):
            store.claim(STUDY)


def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with Store(tmp_path).lock(), pytest.raises(FileExistsError, match="holds no study"):
        Store(tmp_path).claim(STUDY)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        Store(tmp_path).lock(),
        pytest.raises(BlockingIOError, match="in use by a running command"),
        Store(tmp_path).lock(),
    ):
        pass
    with Store(tmp_path).lock():
        pass


@pytest.mark.parametrize(
    "edited",
    [
        {"metrics": {"accuracy": "x"}},
        {"metrics": None},
        {"places": {"offsets": [[0, 0]]}},
        {"places": {"offsets": [[0, 0], [0, 1]], "accuracy": [0.5]}},
        {"places": [1]},
    ],
    ids=str,
)
def test_an_edited_result_counts_as_unfinished(tmp_path: Path, edited: dict[str, Any]) -> None:
    places = {"offsets": [[0, 0]], "accuracy": [0.5]}
    whole = {"status": "done", "metrics": {"accuracy": 0.5, "none": None}, "places": places}
    store = Store(tmp_path)
    store.trial("a").finish(whole)
    store.trial("b").finish(whole | edited)
    assert store.results(["a", "b"]) == {"a": whole}


def test_results_skip_what_is_unfinished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    done = {"status": "done", "metrics": {"accuracy": 0.5}}
    store.trial("a").finish(done)
    store.trial("b").start({}, {})
    assert store.results(["a", "b", "c"]) == {"a": done}
    assert json.loads((tmp_path / "trials" / "a" / "result.json").read_text())["status"] == "done"
    assert not list(tmp_path.glob("trials/*/*.tmp"))
    assert stores.read_json(tmp_path / "trials" / "c" / "result.json") is None

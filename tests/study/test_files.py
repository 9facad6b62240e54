"""Files that are whole or not there: tries that do not mix, corrupt content, object stores."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnjax.config import SCHEMA
from cnnjax.study import files
from cnnjax.study.files import Journal, everywhere, place, read_json, read_lines, write_json
from cnnjax.study.store import Store, TrialFiles


def test_lines_of_two_tries_never_mix(tmp_path: Path) -> None:
    old, new = Journal(tmp_path / "m.jsonl"), Journal(tmp_path / "m.jsonl")
    old.start()
    old.append({"epoch": 1})
    new.start()  # the driver died and was started again; its orphan does not know yet
    with pytest.raises(FileExistsError, match="has begun this trial anew"):
        old.append({"epoch": 2})
    new.append({"epoch": 1})
    assert read_lines(tmp_path / "m.jsonl") == [{"epoch": 1}]


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"', "{", "", "\x00\x00", "[" * 10**5])
def test_corrupt_files_are_no_files(tmp_path: Path, text: str) -> None:
    trial = TrialFiles(tmp_path)
    for name in ("config.json", "env.json", "result.json"):
        (tmp_path / name).write_text(text)
    assert trial.result() is None and trial.env() == {}
    with pytest.raises(FileNotFoundError, match="no trial here"):
        trial.config()
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(FileNotFoundError, match="no study here"):
        Store(tmp_path).description()
    with pytest.raises(FileExistsError, match="another study"):
        Store(tmp_path).claim({"name": "mine", "fixed": {}})


def test_a_result_without_what_the_tables_need_is_none(tmp_path: Path) -> None:
    trial = TrialFiles(tmp_path)
    odd: list[dict[str, Any]] = [{}, {"status": "done"}, {"status": "x"}]
    odd += [{"status": "done", "metrics": 3}, {"status": "done", "metrics": {}, "places": [1]}]
    for result in odd:
        trial.finish(result)
        assert trial.result() is None
    trial.finish({"status": "failed", "reason": "diverged"})
    assert trial.result() is not None


def test_a_result_under_anothers_name_is_not_its(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.trial("a").finish({"id": "b", "status": "failed"})
    assert store.results(["a"]) == {}


def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"epoch": 1}\n\x00\x00\x00')  # what a power cut leaves
    assert read_lines(path) == [{"epoch": 1}]
    path.write_text('{"epoch": 1}\n[2]\n{"epoch": 3}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_lines(path)


@pytest.mark.parametrize("field", ["format", "schema"])
def test_a_directory_of_another_version_is_refused(tmp_path: Path, field: str) -> None:
    store, study = Store(tmp_path), {"name": "mine", "fixed": {}}
    store.claim(study)
    ours = read_json(tmp_path / "study.json")
    write_json(tmp_path / "study.json", ours | {field: 99})
    for act in (lambda: store.claim(study), store.description):
        with pytest.raises(FileExistsError, match=rf"another version of cnnjax \({field} 99, this"):
            act()
    write_json(tmp_path / "study.json", study)  # one of before there were versions
    store.claim(study)
    assert read_json(tmp_path / "study.json") == ours


@pytest.mark.parametrize("schema", [SCHEMA - 1, SCHEMA + 1, None, "2", [2]])
def test_a_result_of_another_version_is_refused(tmp_path: Path, schema: Any) -> None:
    """What its figures mean is not known here, whether the version is older or newer."""
    files = Store(tmp_path).trial("a")
    files.finish({"id": "a", "status": "failed", "schema": SCHEMA})
    assert files.result() is not None
    files.finish({"id": "a", "status": "failed", "schema": schema})
    for act in (files.result, lambda: Store(tmp_path).results(["a"])):
        with pytest.raises(FileExistsError, match=r"trials/a was written by another version.*sche"):
            act()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("memory://runs/x", "memory:// is not supported"),
        ("http://host/x", "http:// is not supported"),
        ("gs://bucket/x", "needs fsspec, which is not installed"),
    ],
)
def test_an_address_it_cannot_write_to_is_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str, says: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"--out={address}: .*{says}"):
        place(address)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make gs:// an object store in a directory: objects only, whole or not at all, no append."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("fsspec.implementations.dirfs")
    from etils.epath import backend

    class Objects(fsspec.implementations.dirfs.DirFileSystem):  # type: ignore[name-defined,misc]
        def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            assert "a" not in mode, "an object store cannot append"
            inner = self._join(path)
            os.makedirs(os.path.dirname(inner), exist_ok=True)
            return self.fs.open(inner, mode, **options)

        def _join(self, path: Any) -> Any:
            return super()._join(path.removeprefix("gs://") if isinstance(path, str) else path)

    store = Objects(str(tmp_path), fsspec.filesystem("file"))
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda self, n: store)
    monkeypatch.setitem(files.STORES, "gs", "fsspec")  # gcsfs itself is not asked for
    yield "gs://bucket/study"


@pytest.mark.extra
def test_a_study_in_an_object_store(bucket: str, tmp_path: Path) -> None:
    store = Store(bucket)
    assert everywhere(store.root) == bucket and files.is_store(store.root)
    with store.lock():
        store.claim({"name": "mine", "fixed": {}})
    assert store.is_study()
    trial = store.trial("a")
    trial.start({"seed": 1}, {"jax": "x"})
    trial.log({"epoch": 1})
    trial.log({"epoch": 2})
    assert trial.metrics() == [{"epoch": 1}, {"epoch": 2}]
    assert trial.result() is None
    trial.save_variables({"kernel": np.ones(3)})
    trial.finish({"id": "a", "status": "failed"})
    assert store.results(["a", "b"]) == {"a": {"id": "a", "status": "failed"}}
    assert trial.variables()["kernel"].tolist() == [1, 1, 1]
    assert (tmp_path / "bucket/study/trials/a/result.json").is_file()
    assert read_json(store.root / "trials" / "a" / "config.json") == {"seed": 1}
    assert not list(tmp_path.glob("**/*.tmp"))
    with pytest.raises(FileExistsError, match="another study"):
        Store(bucket).claim({"name": "other", "fixed": {}})

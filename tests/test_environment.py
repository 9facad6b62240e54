"""Where a number was made is said so that another place, or another source, is said otherwise."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cnnjax import environment


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package under git that holds nothing but the module and a part of its own."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    root = tmp_path / "cnnjax"
    (root / "study").mkdir(parents=True)
    (root / "study" / "part.py").write_text("x = 1\n")
    shutil.copy(environment.__file__, root)
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "All of it"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return root


def module(package: Path) -> Any:
    spec = importlib.util.spec_from_file_location("copy", package / "environment.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("name", ["train.py", "study/part.py"])
def test_an_uncommitted_change_anywhere_in_the_package_is_told(package: Path, name: str) -> None:
    clean = module(package).commit()
    assert len(clean) == 12
    (package / name).write_text("x = 2\n")
    assert module(package).commit() == f"{clean}+"


def test_where_there_is_no_git_the_commit_is_unknown(package: Path) -> None:
    shutil.rmtree(package.parent / ".git")
    assert module(package).commit() == "unknown"


def test_the_source_s_fingerprint_is_of_names_and_contents(package: Path) -> None:
    found = {module(package).code()}
    (package / "study" / "part.py").write_text("x = 2\n")
    found.add(module(package).code())
    (package / "study" / "part.py").rename(package / "part.py")
    found.add(module(package).code())
    (package / "notes.txt").write_text("not source")
    found.add(module(package).code())
    assert len(found) == 3


CPUINFO = "model name\t: Zen\ncpu family\t: 25\nmodel\t\t: {}\nflags\t\t: {}\ncpu MHz\t\t: {}\n"


def test_processors_of_one_name_may_run_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(model: int, flags: str, mhz: float) -> tuple[str, str]:
        monkeypatch.setattr(Path, "read_text", lambda *_: CPUINFO.format(model, flags, mhz) * 2)
        environment.processor.cache_clear()
        environment.instructions.cache_clear()
        return environment.processor(), environment.instructions()

    first = told(1, "avx2", 2400.0)
    assert told(1, "avx2", 2401.5) == first
    others = {told(1, "avx2 avx512f", 2400.0), told(17, "avx2", 2400.0)}
    assert len(others | {first}) == 3
    assert {name for name, _ in others} == {"Zen"}
    environment.processor.cache_clear()
    environment.instructions.cache_clear()


@pytest.mark.parametrize(("given", "count"), [("3", 3), ("many", None), ("", None)])
def test_xla_s_threads(monkeypatch: pytest.MonkeyPatch, given: str, count: int | None) -> None:
    monkeypatch.setenv("NPROC", given)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: range(5), raising=False)
    assert environment.threads() == (count or 5)

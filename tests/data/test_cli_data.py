"""`cnnjax data`, called as the command line calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from absl import flags

from cnnjax.cli.data import main, progress
from cnnjax.data import DATASETS, DatasetCard


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CNNJAX_MIRROR", raising=False)


def test_list_names_every_set_and_says_what_is_there(
    small_mnist: DatasetCard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", f"--data_dir={tmp_path}"]) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert set(DATASETS) <= set(lines)
    assert "present" in lines["mnist"]
    assert "missing" in lines["cifar10"]
    assert "embedded" in lines["shapes"]
    (tmp_path / "mnist" / f"{small_mnist.files[0].name}.gz").unlink()
    main(["list", "--data_dir", str(tmp_path)])
    assert "3 of 4" in capsys.readouterr().out


@pytest.mark.usefixtures("small_mnist")
def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "mnist", f"--data_dir={tmp_path}"]) == 0
    assert "is the official one" in capsys.readouterr().out
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(bytes(48))
    with pytest.raises(OSError, match="train-labels-idx1-ubyte: MD5"):
        main(["verify", "mnist", f"--data_dir={tmp_path}"])


@pytest.mark.usefixtures("small_mnist")
def test_fetch_of_what_is_there_asks_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "mnist", f"--data_dir={tmp_path}"]) == 0
    assert capsys.readouterr().out == f"mnist: verified, in {tmp_path / 'mnist'}\n"


def test_progress_counts_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report("a.gz", 50, 100)
        report("a.gz", 100, 100)
        report("b.gz", 3, 3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "a.gz" in shown.err and "b.gz" in shown.err


def test_help_names_verbs_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["fetch", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("list", "fetch NAME", "verify NAME", "--data_dir", "--mirror", "--timeout"):
        assert word in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one of list, fetch, verify"),
        (["fech", "mnist"], "unknown name 'fech'; did you mean fetch"),
        (["fetch"], "expected one name of a data set, got none"),
        (["fetch", "mnist", "cifar10"], "expected one name of a data set, got mnist cifar10"),
        (["verify", "digits"], "dataset digits: no official files"),
        (["list", "mnist"], "takes no names, got mnist"),
        (["fetch", "mnist", "--mirrr=x"], "Did you mean: mirror"),
        (["fetch", "mnist", "--timeout=soon"], "timeout"),
        (["fetch", "mnist", "--timeout=-1"], "timeout=-1.0: expected more than 0"),
        (["fetch", "mnist", "--mirror=x"], "mirror='x': expected an address"),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        main([*words, f"--data_dir={tmp_path}"])
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cnnjax data fetch mnist"):
        main(["verify", "mnist", f"--data_dir={tmp_path}"])


def test_global_flags_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(flags.FLAGS)
    main(["list"])
    assert set(flags.FLAGS) == before

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import pickled

PIXELS = np.arange(60, dtype=np.uint8).reshape(4, 15)

# What CIFAR's own files look like: written by Python 2, text as byte strings, protocol 2.
PYTHON_2_BATCH = (
    b"\x80\x02}q\x01(U\x0bbatch_labelU\x01xU\x06labels]q\x02(K\x01K\x02eU\x04data"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06abcdeftbu."
)


class Payload:
    """Calls a function when it is unpickled, as an attacker's file would."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("pixels", [PIXELS, np.asfortranarray(PIXELS)], ids=["C", "Fortran"])
def test_round_trip(protocol: int, pixels: np.ndarray) -> None:
    content = {"data": pixels, "labels": [3, 1], b"name": b"x", "pair": (1, 2.5, None, "text")}
    found = pickled.loads(pickle.dumps(content, protocol), "x")
    assert np.all(found.pop("data") == PIXELS)
    assert found["labels"] == [3, 1]
    assert found["pair"][1:3] == (2.5, None)


def test_a_file_written_by_python_2() -> None:
    found = pickled.loads(PYTHON_2_BATCH, "x")
    assert found["labels"] == [1, 2]
    assert found["batch_label"] == b"x"
    assert found["data"].tolist() == [[97, 98, 99], [100, 101, 102]]


def victim(path: Path) -> None:
    path.write_text("the attacker was here")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_file_is_refused_and_runs_nothing(protocol: int, tmp_path: Path) -> None:
    evil = pickle.dumps({"data": Payload(victim, tmp_path / "trace")}, protocol)
    pickle.loads(evil)
    assert (tmp_path / "trace").exists()
    (tmp_path / "trace").unlink()
    with pytest.raises(OSError, match=r"batch: not a readable pickle .* asks for"):
        pickled.loads(evil, "batch")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "name",
    ["os\nsystem", "builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy\nfromfile",
     "numpy.core.multiarray\nscalar", "copyreg\n_reconstructor", "cnnjax.data.pickled\nloads"],
)  # fmt: skip
def test_no_other_name_is_reachable(name: str) -> None:
    raw = b"c" + name.encode() + b"\n."
    with pytest.raises(OSError, match="asks for " + name.replace("\n", r"\.")):
        pickled.loads(raw, "x")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.5]), "type 'f8', expected u1"),
        (np.array([{}], dtype=object), "expected u1"),
        (np.array([1], np.int64), "expected u1"),
    ],
)
def test_only_byte_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(OSError, match=message):
        pickled.loads(pickle.dumps({"data": array}, 2), "x")


def test_an_array_whose_shape_is_a_lie() -> None:
    with pytest.raises(OSError, match="not a readable pickle"):
        pickled.loads(PYTHON_2_BATCH.replace(b"K\x02K\x03\x86", b"K\x7fK\x7f\x86"), "x")


@pytest.mark.parametrize("raw", [b"", b"\x80\x02", b"junk", PYTHON_2_BATCH[:-20], b"\x80\x7f."])
def test_damaged(raw: bytes) -> None:
    with pytest.raises(OSError, match="batch: not a readable pickle"):
        pickled.loads(raw, "batch")


def test_something_other_than_a_dict() -> None:
    with pytest.raises(OSError, match="holds list, expected a dict"):
        pickled.loads(pickle.dumps([1]), "x")

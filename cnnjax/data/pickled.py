"""A pickle reader that can build nothing but plain values and byte arrays: bytes -> dict.

Unpickling can call any function in the interpreter, so a data file is never given to the plain
`pickle.load`. Here the few names that a pickled NumPy array refers to are answered by stand-ins
that accept unsigned bytes only; every other name is refused before anything is called.

    batch = loads(raw, "data_batch_1")      # {"data": (10000, 3072) uint8, "labels": [...], ...}
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Array:
    """Stands in for numpy.ndarray: takes the state of a pickled array of unsigned bytes."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("an array of something other than bytes")
        array = np.frombuffer(raw, np.uint8)
        self.array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


class _Dtype:
    """Stands in for numpy.dtype: unsigned bytes and nothing else."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of type {code!r}, expected u1")

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment mean nothing for single bytes."""


def _empty_array(kind: object, *_: object) -> _Array:
    if kind is not _Array:
        raise pickle.UnpicklingError("an array of an unknown class")
    return _Array()


def _latin1(text: str, codec: str) -> bytes:
    # How Python 3 writes bytes into the pickle protocols that Python 2 can read.
    if codec not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes encoded as {codec!r}")
    return text.encode("latin1")


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
    **{(module, "_reconstruct"): _empty_array for module in ARRAY_MODULES},
}


class RestrictedUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers, text, bytes and arrays of unsigned bytes."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data does not need")
        return STAND_INS[module, name]


def loads(raw: bytes, name: str) -> dict[str, Any]:
    """Return the pickled dict with text keys and uint8 arrays (values may be bytes).

    Raises OSError naming the file for anything else, before any foreign code could run.
    """
    try:
        content = RestrictedUnpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly any built-in exception
        raise OSError(f"{name}: not a readable pickle of plain data ({error})") from error
    if not isinstance(content, dict):
        raise OSError(f"{name}: holds {type(content).__name__}, expected a dict")
    return {_text(key): getattr(value, "array", value) for key, value in content.items()}


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)

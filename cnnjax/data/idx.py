"""The idx format of MNIST: bytes -> array.

Two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the data (Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database
of handwritten digits").

    images = parse(raw, "train-images-idx3-ubyte", ndim=3)
"""

from __future__ import annotations

import math

import numpy as np

UNSIGNED_BYTE = 8
KINDS = {1: "labels", 3: "images"}


def parse(raw: bytes, name: str, *, ndim: int) -> np.ndarray:
    """Return the array, uint8 with `ndim` dimensions, as a read-only view of `raw`.

    Raises OSError naming the file on a wrong magic number, type or length.
    """
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise OSError(f"{name}: not an idx file (it begins with {raw[:4].hex(' ')})")
    if raw[2] != UNSIGNED_BYTE:
        raise OSError(f"{name}: idx type code {raw[2]:#04x}, expected 0x08, unsigned bytes")
    if raw[3] != ndim:
        found = KINDS.get(raw[3], "data")
        raise OSError(
            f"{name}: holds {found} ({raw[3]} dimensions) where {KINDS.get(ndim, 'data')} "
            f"({ndim} dimensions) are expected"
        )
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise OSError(f"{name}: {len(raw)} bytes, less than its header of {start}")
    shape = tuple(np.frombuffer(raw[4:start], ">u4").tolist())
    promised = start + math.prod(shape)
    if len(raw) != promised:
        raise OSError(f"{name}: {len(raw)} bytes where its header promises {promised}")
    if math.prod(shape) == 0:
        raise OSError(f"{name}: holds no data (shape {shape})")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)

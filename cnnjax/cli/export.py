"""usage: cnnjax export RUN --format=onnx|numpy --out=FILE

Write the trained network of RUN (a directory of `cnnjax train --out`, or a trial of a study) for
programs without JAX. onnx: a graph from (N, H, W, C) uint8 images to logits, the preprocessing
inside, class names and temperature in its metadata; it is written only if onnxruntime gives the
same logits to 1e-4 (needs `pip install 'cnnjax[onnx]'`). numpy: FILE.npz with an array a variable,
and FILE.json that says what they are.

  cnnjax export runs/pets --format=onnx --out=pets.onnx
  cnnjax export runs/pets --format=numpy --out=pets.npz
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cnnjax import spec
from cnnjax.cli.flags import Flags
from cnnjax.study.export import to_numpy, to_onnx
from cnnjax.study.trained import load

FORMATS: Mapping[str, Callable[..., Any]] = {"onnx": to_onnx, "numpy": to_numpy}


def main(words: list[str]) -> int:
    """Run the verb; return 0. What cannot be exported raises ValueError with its reason."""
    flags = Flags("export", __doc__ or "")
    flags.string("format", "onnx", "|".join(FORMATS))
    flags.string("out", None, "file to write")
    rest = flags.parse(words)
    if rest is None:
        return 0
    if len(rest) != 1:
        raise ValueError(f"expected one run, got {' '.join(rest) or 'none'}")
    if not flags.out:
        raise ValueError("out: expected --out=FILE, the file to write")
    write = spec.find(FORMATS, flags.format, "format")
    difference = write(load(rest[0]), flags.out)
    checked = "" if difference is None else f", logits equal to {difference:.1e} in onnxruntime"
    print(f"{flags.out}: written{checked}")
    return 0

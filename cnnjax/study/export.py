"""A trained network for programs without JAX: as an ONNX graph, or as NumPy arrays.

    to_onnx(load("runs/pets"), "pets.onnx")     # checked in onnxruntime before it is written
    to_numpy(load("runs/pets"), "pets.npz")     # and pets.json beside it

ONNX: input "image" (N, H, W, C) uint8, output "logits" (N, K) float32. N is free, or 1 for methods
whose operations the converter knows for fixed sizes alone (the Fourier ones). The graph has the
preprocessing, its metadata class names and temperature (JSON texts "classes" and
"temperature"). Probabilities are softmax(logits / temperature).

NumPy: one array a variable, named by its path in the tree, "params/Conv_0/kernel"; the manifest
says what they are (see `manifest`). Kernels are (height, width, in, out), matrices (in, out).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnnjax.config import to_dict
from cnnjax.environment import software
from cnnjax.ops.plain import plain
from cnnjax.study.keeping import fingerprint, flat
from cnnjax.study.store import write_bytes, write_json
from cnnjax.study.trained import Trained

FORMAT = "cnnjax-arrays-1"
TOLERANCE = 1e-4
BATCHES: tuple[Any, ...] = ("N", 1)  # any number of images, else one
CHECKED = {"N": (1, 3), 1: (1,)}
NEEDED = ("jax2onnx", "onnxruntime")


def to_numpy(trained: Trained, out: str | os.PathLike[str]) -> None:
    """Write the variables to `out`, an .npz file, and their manifest to the same name with .json.

    Raises ValueError for another ending.
    """
    path = Path(out)
    if path.suffix != ".npz":
        raise ValueError(f"out: expected a name that ends in .npz, got {path.name!r}")
    arrays = flat(trained.variables)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())
    write_json(path.with_suffix(".json"), manifest(trained, arrays))


def manifest(trained: Trained, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what the arrays are.

    format; config: every field of Config; recipe: class names and preprocessing (see
    `data.recipe.Recipe`; x = pixels / 255, then (x - mean) / std per channel where `standardize`);
    temperature; arrays: path -> shape and dtype; sha256 over all of them; software.
    """
    return {
        "format": FORMAT,
        "config": to_dict(trained.config),
        "recipe": trained.recipe.to_dict(),
        "temperature": trained.temperature,
        "arrays": {
            path: {"shape": list(array.shape), "dtype": str(array.dtype)}
            for path, array in arrays.items()
        },
        "sha256": fingerprint(arrays),
        "software": software(),
    }


def to_onnx(trained: Trained, out: str | os.PathLike[str]) -> float:
    """Write the network as ONNX; return the largest difference of a logit from JAX's.

    Nothing is written unless onnxruntime gives the same logits to TOLERANCE on random images, of
    the largest logit where that is above 1.
    Raises OSError without the extra `onnx`, ValueError with the reason where an operation has no
    counterpart in ONNX or logits differ.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise OSError(f"{package} is not installed: pip install 'cnnjax[onnx]'")
    with _quiet():
        content, worst = _first_that_works(trained)
    write_bytes(Path(out), content)
    return worst


def _first_that_works(trained: Trained) -> tuple[bytes, float]:
    failure: ValueError | None = None
    for batch in BATCHES:
        try:
            content = _converted(trained, batch)
            return content, max(_difference(trained, content, count) for count in CHECKED[batch])
        except ValueError as error:
            failure = error
    raise failure or AssertionError


def _converted(trained: Trained, batch: Any) -> bytes:
    import jax2onnx

    images = jax.ShapeDtypeStruct((batch, *trained.recipe.image_shape), np.uint8)
    try:
        # A fixed size is traced here, where the converter has not yet put its own jax.numpy in the
        # way; a free one only it can trace.
        fixed = None if batch == "N" else plain(trained.logits, images)
        model = jax2onnx.to_onnx(
            fixed or (lambda images: plain(trained.logits, images)(images)),
            [images],
            model_name=trained.config.net,
            input_names=["image"],
            output_names=["logits"],
        )
    except Exception as error:  # the converter has no one kind of error for what it lacks
        raise ValueError(f"{_arm(trained)} cannot be written as ONNX: {_reason(error)}") from error
    for key in ("classes", "temperature"):
        entry = model.metadata_props.add()
        entry.key = key
        value = trained.temperature if key == "temperature" else trained.recipe.classes
        entry.value = json.dumps(value)
    return model.SerializeToString()


def _difference(trained: Trained, content: bytes, count: int) -> float:
    import onnxruntime

    shape = (count, *trained.recipe.image_shape)
    images = np.random.RandomState(count).randint(0, 256, shape).astype(np.uint8)
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"image": images})
    except Exception as error:  # onnxruntime's errors share no class either
        raise ValueError(f"{_arm(trained)}: onnxruntime refuses it: {_reason(error)}") from error
    expected = np.asarray(jax.jit(trained.logits)(images))
    worst = float(np.abs(logits - expected).max())
    # float32 has seven digits: what they leave of a logit of 1,000 is 1e-4.
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not worst <= allowed:
        raise ValueError(
            f"{_arm(trained)}: the logits of onnxruntime differ by {worst:.2g}, more than "
            f"{allowed:.2g}; nothing is written"
        )
    return worst


def _arm(trained: Trained) -> str:
    pool = trained.config.pool or "its published pools"
    return f"{trained.config.net} with {pool}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Both packages speak of their own plugins and shapes, in logs and warnings.
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

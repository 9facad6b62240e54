"""What a trained network is worth: accuracy, accuracy at shifted places, exact shift consistency.

    metrics, places, predictions = judge(config, net, variables, dataset)
    metrics["accuracy_away"], metrics["consistency"], places["offsets"], places["accuracy"]

`accuracy` is over the whole test set where it stands. The rest is over its first
`config.shift_images`, moved to a square grid of places, and, where one dense pass can, to all H*W
circular shifts (`circular_*`).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import build
from cnnjax.config import Config
from cnnjax.data import Dataset
from cnnjax.invariance import battery, structure
from cnnjax.invariance.certificate import certify
from cnnjax.invariance.exhaustive import exhaustive, has_dense_pass
from cnnjax.invariance.logits import shift_logits
from cnnjax.invariance.metrics import consistency
from cnnjax.study.measures import MEASURES
from cnnjax.study.predictions import Predictions
from cnnjax.train.calibration import calibration_error, fit_temperature
from cnnjax.train.fit import evaluate
from cnnjax.train.step import eval_step

EVAL_BATCH = 256


def judge(
    config: Config, net: nn.Module, variables: Any, dataset: Dataset
) -> tuple[dict[str, float], dict[str, Any], Predictions]:
    """Return (metrics by name, the grid of places with the accuracy at each, the classes given)."""
    step = jax.jit(
        eval_step(net, transform=build.build_input(dataset), loss=build.build_loss(config))
    )
    test, given = evaluate(step, variables, dataset.test, batch_size=EVAL_BATCH)
    images, labels = (part[: config.shift_images] for part in dataset.test)
    offsets = places(config, dataset)
    logits, exact = moved_logits(config, net, variables, dataset, images, offsets)
    predictions = np.argmax(logits, axis=-1)
    by_place = np.mean(predictions == labels[:, None], axis=0)
    away = np.any(offsets != 0, axis=1)
    metrics = {
        "accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "accuracy_away": float(np.mean(by_place[away])),
        "consistency": float(consistency(predictions)),
        "test_images": test["images"],
        "shifted_images": len(labels),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
    }
    if config.battery == "full":
        x = build.build_input(dataset)(jnp.asarray(images))
        metrics |= battery.battery(net, variables, x, labels, level="full")
    elif config.battery == "cheap" and exact is not None:
        metrics |= battery.figures("circular", exact, labels)
    if dataset.validation is not None:
        validation, known = evaluate(step, variables, dataset.validation, batch_size=EVAL_BATCH)
        metrics["validation_accuracy"] = validation["accuracy"]
        metrics |= calibrate(known, dataset.validation.labels, given, dataset.test.labels)
    metrics |= MEASURES[config.measure](config, net, variables, dataset)
    grid = {"offsets": offsets.tolist(), "accuracy": by_place.tolist()}
    found = Predictions(dataset.test.labels, given.argmax(axis=-1), predictions, offsets)
    return metrics, grid | {"boundary": dataset.boundary}, found


def calibrate(
    known: np.ndarray, known_labels: np.ndarray, new: np.ndarray, new_labels: np.ndarray
) -> dict[str, float]:
    """Return the temperature fitted on known logits (M, K), and the error of confidence on new.

    Without a validation split there is no temperature: fitted on the test images it would make them
    look better than they are.
    """
    temperature = fit_temperature(known, known_labels)
    return {
        "temperature": temperature,
        "calibration_error": calibration_error(new, new_labels),
        "calibration_error_scaled": calibration_error(new / temperature, new_labels),
    }


def guarantee(
    config: Config, net: nn.Module, variables: Any, dataset: Dataset
) -> dict[str, Any] | None:
    """Return what the network guarantees: its plan, and with the full battery the proof."""
    if config.battery == "none":
        return None
    if config.battery == "cheap":
        plan = structure.read(net, variables, dataset.image_shape)
        return {"verdict": "not examined", "paragraph": plan.sentence()}
    sample = build.build_input(dataset)(jnp.asarray(dataset.test.images[:2]))
    found = certify(net, variables, dataset.image_shape, images=sample)
    return found.to_dict() | {"paragraph": found.paragraph()}


def places(config: Config, dataset: Dataset) -> np.ndarray:
    """Return the test shifts (K, 2) in pixels, rows then columns: a square grid about (0, 0)."""
    reach = config.eval_shift or dataset.slack or max(dataset.image_shape[:2]) // 8
    side = np.rint(np.linspace(-reach, reach, config.eval_places)).astype(int)
    side = np.unique(np.append(side, 0))
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


def moved_logits(
    config: Config,
    net: nn.Module,
    variables: Any,
    dataset: Dataset,
    images: np.ndarray,
    offsets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return logits (N, K, classes) at the offsets and, where it is cheap, at all H*W shifts.

    Without a battery nobody asked for all shifts, and a few places cost less.
    """
    transform = build.build_input(dataset)
    x = transform(jnp.asarray(images))
    wanted = config.battery != "none" and has_dense_pass(net, variables, x.shape)
    exact = exhaustive(net, variables, x).logits if wanted else None
    if exact is not None and is_a_roll(offsets, dataset):
        height, width = dataset.image_shape[:2]
        return exact[:, offsets[:, 0] % height * width + offsets[:, 1] % width], exact
    forward: Any = net.apply
    logits = shift_logits(
        lambda variables, x: forward(variables, transform(x), train=False),
        images,
        shifts=offsets,
        boundary=dataset.boundary,
        variables=variables,
    )
    return logits, exact


def is_a_roll(offsets: np.ndarray, dataset: Dataset) -> bool:
    """Return whether these shifts are circular ones, as they are while only black leaves."""
    inside = int(np.abs(offsets).max()) <= dataset.slack
    return dataset.boundary == "circular" or inside

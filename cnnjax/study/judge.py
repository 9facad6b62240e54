"""What a trained network is worth: accuracy, accuracy at shifted places, exact shift consistency.

    judged = judge(config, net, variables, dataset)
    judged.metrics["accuracy_away"], judged.metrics["consistency"], judged.places["offsets"]

`accuracy` is over the whole test set where it stands. The rest is over its first
`config.shift_images`, moved to a square grid of places, and, where one dense pass can, to all H*W
circular shifts (`circular_*`).
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import build
from cnnjax.config import Config
from cnnjax.data import Dataset
from cnnjax.invariance import battery, structure
from cnnjax.invariance.certificate import audit_logits, certify
from cnnjax.invariance.exhaustive import NotDense, dense
from cnnjax.invariance.logits import shift_logits
from cnnjax.invariance.metrics import consistency
from cnnjax.study.measures import MEASURES
from cnnjax.study.predictions import Predictions
from cnnjax.train.calibration import calibration_error, fit_temperature
from cnnjax.train.fit import evaluate
from cnnjax.train.step import eval_step

EVAL_BATCH = 256


class Judgement(NamedTuple):
    """Metrics by name, the grid of places with the accuracy at each, the classes given.

    `all_shifts` are the logits (N, H*W, classes) of the first test images at all circular shifts,
    None where that would take rolling; `seconds_battery` is what the invariance figures took.
    """

    metrics: dict[str, float]
    places: dict[str, Any]
    predictions: Predictions
    all_shifts: np.ndarray | None
    seconds_battery: float


def judge(config: Config, net: nn.Module, variables: Any, dataset: Dataset) -> Judgement:
    """Return what a trained network is worth."""
    step = jax.jit(
        eval_step(net, transform=build.build_input(dataset), loss=build.build_loss(config))
    )
    test, given = evaluate(step, variables, dataset.test, batch_size=EVAL_BATCH)
    images, labels = (part[: config.shift_images] for part in dataset.test)
    x = build.build_input(dataset)(jnp.asarray(images))
    offsets = places(config, dataset)
    start = time.perf_counter()
    exact = all_shifts(config, net, variables, x)
    figures = invariance(config, net, variables, x, labels, exact)
    seconds = time.perf_counter() - start
    logits = moved_logits(net, variables, dataset, images, offsets, exact)
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
    metrics |= figures
    if dataset.validation is not None:
        validation, known = evaluate(step, variables, dataset.validation, batch_size=EVAL_BATCH)
        metrics["validation_accuracy"] = validation["accuracy"]
        metrics |= calibrate(known, dataset.validation.labels, given, dataset.test.labels)
    metrics |= MEASURES[config.measure](config, net, variables, dataset)
    grid = {"offsets": offsets.tolist(), "accuracy": by_place.tolist()}
    found = Predictions(dataset.test.labels, given.argmax(axis=-1), predictions, offsets)
    return Judgement(metrics, grid | {"boundary": dataset.boundary}, found, exact, seconds)


def invariance(
    config: Config,
    net: nn.Module,
    variables: Any,
    x: jax.Array,
    labels: np.ndarray,
    exact: np.ndarray | None,
) -> dict[str, float]:
    """Return the figures of the battery that the config asks for."""
    if config.battery == "full":
        return battery.battery(net, variables, x, labels, level="full")
    if config.battery == "cheap" and exact is not None:
        return battery.figures("circular", exact, labels)
    return {}


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
    config: Config, net: nn.Module, variables: Any, dataset: Dataset, all_shifts: np.ndarray | None
) -> dict[str, Any] | None:
    """Return what the network guarantees: with the full battery its certificate.

    With the cheap one its plan and, where there are logits `all_shifts` (`Judgement`), their audit;
    a proof is a matter of the arm and not of the trial, and is left to the report.
    """
    if config.battery == "none":
        return None
    if config.battery == "full":
        sample = build.build_input(dataset)(jnp.asarray(dataset.test.images[:2]))
        found = certify(net, variables, dataset.image_shape, images=sample)
        return found.to_dict() | {"paragraph": found.paragraph()}
    sentences = [structure.read(net, variables, dataset.image_shape).sentence()]
    known = None
    if all_shifts is not None:
        known = audit_logits(variables, all_shifts, dataset.image_shape[:2])
        sentences.append(known.sentence())
    return {
        "verdict": "not examined",
        "paragraph": " ".join(sentences),
        "audit": None if known is None else asdict(known),
    }


def places(config: Config, dataset: Dataset) -> np.ndarray:
    """Return the test shifts (K, 2) in pixels, rows then columns: a square grid about (0, 0)."""
    reach = config.eval_shift or dataset.slack or max(dataset.image_shape[:2]) // 8 or 1
    side = np.rint(np.linspace(-reach, reach, config.eval_places)).astype(int)
    side = np.unique(np.append(side, 0))
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


def all_shifts(config: Config, net: nn.Module, variables: Any, x: jax.Array) -> np.ndarray | None:
    """Return the logits (N, H*W, classes) at all circular shifts where one dense pass gives them.

    None where it would take rolling. Without a battery nobody asked for all shifts, and a few
    places cost less.
    """
    if config.battery == "none":
        return None
    try:
        return dense(net, variables, x).logits
    except NotDense:
        return None


def moved_logits(
    net: nn.Module,
    variables: Any,
    dataset: Dataset,
    images: np.ndarray,
    offsets: np.ndarray,
    exact: np.ndarray | None,
) -> np.ndarray:
    """Return logits (N, K, classes) at the offsets, those of all shifts where they hold them."""
    if exact is not None and is_a_roll(offsets, dataset):
        height, width = dataset.image_shape[:2]
        return exact[:, offsets[:, 0] % height * width + offsets[:, 1] % width]
    transform = build.build_input(dataset)
    forward: Any = net.apply
    return shift_logits(
        lambda variables, x: forward(variables, transform(x), train=False),
        images,
        shifts=offsets,
        boundary=dataset.boundary,
        variables=variables,
    )


def is_a_roll(offsets: np.ndarray, dataset: Dataset) -> bool:
    """Return whether these shifts are circular ones, as they are while only black leaves."""
    inside = int(np.abs(offsets).max()) <= dataset.slack
    return dataset.boundary == "circular" or inside

"""MEASURES: what a study may want to know of a trained network beside the usual figures, by name.

    MEASURES["negative"](config, net, variables, dataset)["accuracy_reversed"]

A new one is a function and a row here, and its name among the choices of Config.measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from cnnjax import build
from cnnjax.config import Config
from cnnjax.data import Dataset, Split
from cnnjax.invariance.exhaustive import exhaustive_logits
from cnnjax.nets.anatomy import anatomy
from cnnjax.train.fit import evaluate
from cnnjax.train.step import eval_step

EVAL_BATCH = 256
ORBIT_IMAGES = 16
# Of the largest logit: above float32's rounding, below what a sampling phase changes.
SAME_LOGIT = 1e-5
Measure = Callable[[Config, nn.Module, Any, Dataset], dict[str, float]]


def nothing(config: Config, net: nn.Module, variables: Any, dataset: Dataset) -> dict[str, float]:
    """Measure no more."""
    return {}


def negative(config: Config, net: nn.Module, variables: Any, dataset: Dataset) -> dict[str, float]:
    """Accuracy on grey-reversed test images, 255 - x, and what negated first filters bring back.

    `accuracy_reversed`: the network as it is. `accuracy_negated`: its first convolution's kernel
    negated (Kuo 2016, Understanding CNNs with a mathematical model). `accuracy_recentred`: besides,
    the bias grows by the sum of the kernel, which undoes the brightness that reversal added; where
    that convolution sees no border, it then gives what it gave for the images themselves.
    """
    step = jax.jit(
        eval_step(net, transform=build.build_input(dataset), loss=build.build_loss(config))
    )
    images, labels = dataset.test
    flipped = Split(255 - images, labels)

    def accuracy(variables: Any) -> float:
        return evaluate(step, variables, flipped, batch_size=EVAL_BATCH)[0]["accuracy"]

    first = first_convolution(net, variables, dataset.image_shape)
    negated = with_first(variables, first, recentre=False)
    return {
        "accuracy_reversed": accuracy(variables),
        "accuracy_negated": accuracy(negated),
        "accuracy_recentred": accuracy(with_first(variables, first, recentre=True)),
    }


def first_convolution(net: nn.Module, variables: Any, image_shape: tuple[int, ...]) -> str:
    """Return the path of the convolution that is called first; ValueError where there is none."""
    layers = anatomy(net, image_shape, variables).layers
    found = next((layer.path for layer in layers if layer.kind == "Conv"), None)
    if found is None:
        raise ValueError("measure: negative needs a convolution, the network has none")
    return found


def with_first(variables: Any, path: str, *, recentre: bool) -> Any:
    """Return the variables with the kernel at `path` negated; `recentre` adds its sum to the bias.

    Images in [0, 1]: for the reversed one, -w (1 - x) + (b + sum w) = w x + b.
    """
    leaves = flatten_dict(variables, sep="/")
    kernel, bias = leaves[f"params/{path}/kernel"], f"params/{path}/bias"
    leaves = {**leaves, f"params/{path}/kernel": -kernel}
    if recentre:
        if bias not in leaves:
            raise ValueError(f"measure: negative needs a bias at {path}, the network has none")
        leaves[bias] = leaves[bias] + kernel.sum(axis=(0, 1, 2))
    return unflatten_dict(leaves, sep="/")


def orbit(config: Config, net: nn.Module, variables: Any, dataset: Dataset) -> dict[str, float]:
    """How many distinct logits an image has over all its H*W circular shifts, up to rounding.

    `logit_orbit`: the mean over the first ORBIT_IMAGES test images; 1 is full invariance, and a
    circular network of total stride S has S*S at most.
    """
    del config
    images = dataset.test.images[:ORBIT_IMAGES]
    logits = exhaustive_logits(net, variables, build.build_input(dataset)(jnp.asarray(images)))
    return {"logit_orbit": float(np.mean([distinct_rows(image) for image in logits]))}


def distinct_rows(logits: np.ndarray) -> int:
    """Return how many rows of (K, C) differ by more than SAME_LOGIT of the largest value."""
    rows = np.unique(logits, axis=0)
    near = cdist(rows, rows, "chebyshev") <= SAME_LOGIT * np.abs(rows).max()
    return int(connected_components(near, directed=False)[0])


MEASURES: Mapping[str, Measure] = {"none": nothing, "negative": negative, "orbit": orbit}

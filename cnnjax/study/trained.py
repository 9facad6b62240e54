"""A trained network as its run left it: directory -> what judges pictures, without the data.

    trained = load("runs/pets")
    trained.probabilities(images)         # (N, H, W, C) uint8 -> (N, K), calibrated
    trained.recipe.read("cat.png")        # the picture as this network takes it

A directory is a run of `cnnjax train --out`, a trial of a study, or a study with one trial.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.errors import FlaxError
from flax.traverse_util import unflatten_dict

from cnnjax import build, data
from cnnjax.config import Config, from_dict
from cnnjax.data.recipe import Recipe
from cnnjax.study.files import place
from cnnjax.study.store import TrialFiles


@dataclass(frozen=True)
class Trained:
    """Network, variables and recipe of one run; `temperature` is 1 where none was fitted."""

    root: Path
    config: Config
    recipe: Recipe
    net: nn.Module
    variables: Any
    temperature: float

    def logits(self, images: jax.Array) -> jax.Array:
        """Return logits (N, K) of images (N, H, W, C) uint8.

        Raises ValueError where the variables are not those of the network, as in an edited run.
        """
        forward: Any = self.net.apply
        try:
            return forward(self.variables, build.build_input(self.recipe)(images), train=False)
        except FlaxError as error:
            raise ValueError(
                f"{self.root}: its variables do not fit its config: {error}"
            ) from error

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Return softmax(logits / temperature), (N, K), of images (N, H, W, C) uint8."""
        return np.asarray(self._compiled(images))

    @cached_property
    def _compiled(self) -> Any:
        return jax.jit(lambda images: jax.nn.softmax(self.logits(images) / self.temperature))


def config_of(files: TrialFiles) -> Config:
    """Return a trial's configuration; ValueError naming the directory where it cannot be read."""
    try:
        return from_dict(files.config())
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{files.root}: of another version of cnnjax ({error})") from None


def load(run: str | os.PathLike[str]) -> Trained:
    """Return what a run has trained; OSError or ValueError says why there is nothing to load.

    A run whose data.json is missing or holds no recipe loads its data set for it.
    """
    files = TrialFiles(only_trial(place(run)))
    config = config_of(files)
    variables = unflatten_dict(files.variables(), sep="/")
    known = (files.data() or {}).get("recipe")
    try:
        recipe = Recipe(**known) if known else _recipe_of(config)
    except TypeError as error:
        raise ValueError(f"{files.root}: data.json holds no recipe ({error})") from None
    net = build.build_net(config, len(recipe.classes), recipe.image_shape)
    temperature = (files.result() or {}).get("metrics", {}).get("temperature", 1.0)
    if not temperature or not 0 < temperature < math.inf:
        raise ValueError(f"{files.root}: temperature {temperature!r} is no number > 0")
    return Trained(files.root, config, recipe, net, variables, temperature)


def trials(directory: Path) -> list[Path]:
    """Return the directory itself, or the trained trials of a study, in alphabetical order."""
    if not (directory / "trials").is_dir():
        return [directory]
    found = sorted(path.parent for path in (directory / "trials").glob("*/variables.npz"))
    if not found:
        raise FileNotFoundError(f"{directory}: no trained trial in this study")
    return found


def only_trial(directory: Path) -> Path:
    """Return the one trial that a directory stands for; ValueError where it holds several."""
    found = trials(directory)
    if len(found) > 1:
        raise ValueError(
            f"{directory}: a study of {len(found)} trained trials; choose one, as {found[0]}"
        )
    return found[0]


def _recipe_of(config: Config) -> Recipe:
    return Recipe.of(data.load(config.dataset, config.data_dir))

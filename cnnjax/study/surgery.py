"""Another pool, border or head for a trained network, with the weights it has.

    found = operate("runs/max", {"pool": "aps"}, finetune_steps=200, out="runs/max_as_aps")
    found["before"]["accuracy"], found["after"]["accuracy"], found["tuned"]["accuracy"]

What the network was trained with stays wherever it has the same name and shape; a leaf of another
shape is refused. Parameters that only the new part has start as they would in training.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from cnnjax import build, data, spec
from cnnjax.config import Config, to_dict, trial_id
from cnnjax.environment import describe
from cnnjax.study.files import place
from cnnjax.study.judge import judge
from cnnjax.study.keeping import fingerprint, flat, learnt_from
from cnnjax.study.store import TrialFiles
from cnnjax.study.trained import config_of
from cnnjax.train.training import finetune

CUTS = ("pool", "window", "stride", "pool_position", "padding", "head")
CAUTION = 0.1  # the peak rate of fine-tuning, in those of training

Arrays = Mapping[str, np.ndarray]


def operate(
    run: str | os.PathLike[str],
    choices: Mapping[str, Any],
    *,
    finetune_steps: int = 0,
    lr: float | None = None,
    data_dir: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Change the fields `choices` (of CUTS) of a trained run and measure what that does.

    Returns {before, after, tuned, fresh, dropped, ...}: metrics by name, `tuned` (None without
    steps) after `finetune_steps` of training at the peak rate `lr`, by default a tenth of the
    run's; the leaves that are new and those without a place. With `out` the result is kept there
    as a run of its own. Raises ValueError naming the leaf whose shape the change does not keep,
    FileNotFoundError where `run` has no trained network, FileExistsError where `out` has one.
    """
    config, metrics, trained = load(run)
    config = dataclasses.replace(config, data_dir=data_dir or config.data_dir)
    other = changed(config, choices)
    files = None if out is None else _empty(out)
    dataset = data.load(other.dataset, other.data_dir)
    net = build.build_net(other, dataset.num_classes, dataset.image_shape)
    arrays, fresh = transplant(trained, start(net, other, dataset.image_shape), told(choices))
    variables = unflatten_dict({k: jnp.asarray(v) for k, v in arrays.items()}, sep="/")
    found: dict[str, Any] = {
        "run": str(run),
        "choices": {name: getattr(other, name) for name in choices},
        "before": metrics,
        "after": judge(other, net, variables, dataset).metrics,
        "tuned": None,
        "fresh": fresh,
        "dropped": sorted(set(trained) - set(arrays)),
        "finetune_steps": finetune_steps,
    }
    if finetune_steps:
        found["lr"] = CAUTION * config.lr if lr is None else lr
        how = dataclasses.replace(other, lr=found["lr"])
        variables = finetune(how, net, dataset, variables, finetune_steps)
        found["tuned"] = judge(other, net, variables, dataset).metrics
    if files is not None:
        files.save_data(learnt_from(dataset))
        _keep(files, config, other, flat(variables), found)
    return found


def load(run: str | os.PathLike[str]) -> tuple[Config, dict[str, float], Arrays]:
    """Return config, metrics and variables of a finished run; FileNotFoundError for another."""
    files = TrialFiles(run)
    config, result = config_of(files), files.result()
    if result is None or result["status"] != "done":
        raise FileNotFoundError(f"{run}: no finished run here (no result, or one that failed)")
    return config, result["metrics"], files.variables()


def changed(config: Config, choices: Mapping[str, Any]) -> Config:
    """Return the config with other choices; ValueError for a field that is not of CUTS."""
    if not choices:
        raise ValueError(f"expected something to change: {', '.join(CUTS)}")
    for name in choices:
        spec.find(dict.fromkeys(CUTS), name, "surgery")
    return dataclasses.replace(config, **choices)


def start(net: nn.Module, config: Config, image_shape: tuple[int, ...]) -> Arrays:
    """Return the variables that training of `net` would start with."""
    image = jnp.zeros((1, *image_shape), jnp.float32)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    return flat(jax.jit(lambda key: net.init(key, image, train=False))(key))


def transplant(trained: Arrays, template: Arrays, why: str) -> tuple[Arrays, list[str]]:
    """Return the template's leaves with trained values, and the names of those that stay new.

    ValueError, with `why`, names the first leaf of another shape.
    """
    for name, leaf in template.items():
        if name in trained and trained[name].shape != leaf.shape:
            raise ValueError(
                f"{why}: {name} was trained with shape {trained[name].shape} and would need "
                f"{leaf.shape}; allowed is what keeps the shapes of all trained leaves"
            )
    fresh = [name for name in template if name not in trained]
    return {name: trained.get(name, leaf) for name, leaf in template.items()}, fresh


def told(choices: Mapping[str, Any]) -> str:
    """Return the choices as flags are written."""
    return ", ".join(f"{name}={value}" for name, value in choices.items())


def _empty(out: str | os.PathLike[str]) -> TrialFiles:
    root = place(out)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"--out={out} is not empty; choose a new directory")
    return TrialFiles(out)


def _keep(
    files: TrialFiles, config: Config, other: Config, arrays: dict[str, np.ndarray], found: Any
) -> None:
    """Keep a run that others verbs read, under a name that is no trial's."""
    files.start(to_dict(other), describe(threads=other.threads))
    files.save_variables(arrays)
    files.finish(
        {
            "id": f"{trial_id(config)}-{trial_id(other)}",
            "status": "done",
            "config": to_dict(other),
            "metrics": found["tuned"] or found["after"],
            "variables_sha256": fingerprint(arrays),
            "surgery": found,
        }
    )

"""What a trial's directory takes and refuses, and how a trial that fails is told.

begin(files, config)                              # FileExistsError where it is another one's
result = or_failure(config, lambda: ...)          # the row, or the one that says why
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from cnnjax.config import Config, from_dict, to_dict, trial_id
from cnnjax.data import Dataset
from cnnjax.data.recipe import Recipe
from cnnjax.environment import describe
from cnnjax.study.rows import failed
from cnnjax.study.store import TrialFiles
from cnnjax.train.fit import Diverged
from cnnjax.train.processes import none_lost
from cnnjax.train.saver import Stopped

CHECKPOINTS = "checkpoints"  # their directory, in the trial's


def begin(files: TrialFiles, config: Config, **env: Any) -> None:
    """Open the files of a trial afresh; FileExistsError where they are another one's."""
    refuse_another(files, config)
    files.start(
        to_dict(config),
        describe(threads=config.threads) | env,
        goes_on=(files.root / CHECKPOINTS).exists(),
    )


def or_failure(config: Config, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the row that `run` returns, or the one that says why it raised."""
    try:
        with none_lost():
            return run()
    except (OSError, Stopped):
        # A full disk, a missing data file, another process that died: not the trial's own failure.
        raise
    except Exception as error:
        return failure(config, error)


def refuse_another(files: TrialFiles, config: Config) -> None:
    """Raise FileExistsError where the directory holds a trial, even one half done, of another."""
    try:
        there = trial_id(from_dict(files.config()))
    except FileNotFoundError:
        if (files.root / "config.json").exists():
            raise FileExistsError(
                f"{files.root} holds a config.json that is no trial's; choose a new directory"
            ) from None
        return
    except (ValueError, TypeError):
        there = "of another version"
    if there != trial_id(config):
        raise FileExistsError(f"{files.root} holds another trial, {there}; choose a new directory")


def failure(config: Config, error: Exception) -> dict[str, Any]:
    """Return the row of a trial that failed."""
    kind = "diverged" if isinstance(error, Diverged) else type(error).__name__
    return failed(config, f"{kind}: {error}".splitlines()[0])


def learnt_from(dataset: Dataset) -> dict[str, Any]:
    """Return the data set's checksum, its recipe and, for pictures out of files, its splits."""
    return {
        "sha256": dataset.checksum,
        "recipe": Recipe.of(dataset).to_dict(),
        "splits": {split: list(names) for split, names in dataset.sources.items()},
    }


def flat(variables: Any) -> dict[str, np.ndarray]:
    """Return a tree of variables as arrays by slash-separated path."""
    leaves = flatten_dict(jax.device_get(variables), sep="/")
    return {path: np.asarray(leaf) for path, leaf in sorted(leaves.items())}


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all variables' paths and bytes: equal fingerprints, equal networks."""
    digest = hashlib.sha256()
    for path, array in arrays.items():
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()

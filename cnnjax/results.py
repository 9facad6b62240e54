"""What a study found, as pandas frames: for a figure or a question of one's own.

    import cnnjax

    found = cnnjax.results.load("runs/mine")
    found.runs.pivot_table("consistency", "stride", "pool").plot().figure.savefig("mine.png")
    found.epochs                      # learning curves, long form
    found.predictions()               # the class given to every image at every place

Read from the trials' own files, so a study that still runs can be looked at too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cnnjax import spec
from cnnjax.config import from_dict
from cnnjax.study import results
from cnnjax.study.finished import Finished
from cnnjax.study.grid import Study, Trial
from cnnjax.study.predictions import Predictions
from cnnjax.study.store import Store, TrialFiles

__all__ = ["Results", "load"]

KEPT = ("id", "image", "dy", "dx", "label", "predicted")


@dataclass(frozen=True)
class Results:
    """The trials of a study, or one trial, as tables.

    runs: a row for each finished or failed trial: id, same_as, status, reason, a column for each
    field of Config, one for each metric, seconds. An arm that is the same function as another was
    run once and has two rows; the second names the first's id in `same_as`, "" elsewhere.
    epochs: id, epoch, name, value: a row for each figure of each epoch, of unfinished trials too.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    _trials: Mapping[str, TrialFiles] = field(repr=False)

    def predictions(self, ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the class given to every test image at every place: id, image, dy, dx, ...

        ids: these trials alone (default: all), for they are large: images times places rows a
        trial. dy, dx: pixels by which the image was moved, down and right. label, predicted:
        classes. Trials that kept none (failed, or of an old version) have no rows. ValueError for
        an id that is not here.
        """
        chosen = list(self._trials if ids is None else ids)
        for name in chosen:
            spec.find(self._trials, name, "id")
        kept = ((name, Predictions.read(self._trials[name])) for name in chosen)
        tables = [_long(name, found) for name, found in kept if found is not None]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=KEPT)


def load(out: str | os.PathLike[str]) -> Results:
    """Return what is in a study's directory, or in that of a single trial.

    FileNotFoundError where it is neither, FileExistsError and ValueError where another version of
    cnnjax wrote it. Trials that a directory holds beside the grid of its study.json (it was another
    once) come after the grid's.
    """
    store = Store(out)
    if (store.root / "config.json").exists():
        return _one_trial(store.root)
    if not store.is_study():
        raise FileNotFoundError(f"{out}: neither a study nor a trial here")
    there = store.trial_ids()
    finished = Finished(store)
    trials = _grid(store)
    finished.read(dict.fromkeys(trial.owner for trial in trials))
    for name, result in store.each(name for name in there if name not in finished):
        trials.append(_trial(f"{out}: trials/{name}", result.get("config")))
        finished.add(name, result)
    files = {name: store.trial(name) for name in there}
    return Results(results.frame(trials, finished), results.epochs(files.values()), files)


def _one_trial(root: os.PathLike[str]) -> Results:
    files = TrialFiles(root)
    trial, result = _trial(str(root), files.config()), files.result()
    runs = results.frame([trial], {} if result is None else {trial.owner: result})
    epochs = results.epochs([files]).assign(id=trial.id)
    return Results(runs, epochs, {trial.id: files})


def _grid(store: Store) -> list[Trial]:
    description = store.description()
    try:
        return Study.from_description(description).trials()
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{store.root}: of another version of cnnjax ({error})") from None


def _trial(place: str, config: object) -> Trial:
    try:
        return Trial(from_dict(config))  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{place}: of another version of cnnjax ({error})") from None


def _long(name: str, kept: Predictions) -> pd.DataFrame:
    """Return one trial's predictions in long form: where the images stand, then place by place."""
    away = np.flatnonzero(kept.offsets.any(axis=1))
    moved, images = kept.moved[:, away], len(kept.moved)
    offsets = np.repeat(kept.offsets[away], images, axis=0)
    image = np.concatenate([np.arange(len(kept.labels)), np.tile(np.arange(images), len(away))])
    stands = np.zeros((len(kept.labels), 2), offsets.dtype)
    dy, dx = np.concatenate([stands, offsets]).T
    predicted = np.concatenate([kept.classes, moved.T.ravel()])
    columns = (name, image, dy, dx, kept.labels[image], predicted)
    return pd.DataFrame(dict(zip(KEPT, columns, strict=True)))

"""What a report is about: one study or several, their runs in one table, and what lies beside them.

    evidence = gather([Source.read(store)])
    evidence.runs, evidence.by, evidence.arms, evidence.comparisons

Several studies are one table: runs of the same configuration, apart from the seed, are one arm,
whichever study made them. A trial that two studies hold counts once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Event
from typing import Any

import pandas as pd

from cnnjax.config import FIELDS
from cnnjax.study import results, statistics
from cnnjax.study.finished import Finished
from cnnjax.study.grid import Contrast, Study, Trial
from cnnjax.study.results import HEADLINES
from cnnjax.study.statistics.family import arm_by_arm, name
from cnnjax.study.store import Store

BOOKKEEPING = ("id", "same_as", "status", "reason", "study", "variables_sha256", "data_sha256")
TIMES = ("seconds_training", "seconds")
COUNTS = ("test_images", "shifted_images")
# A family of more comparisons than this is asked of one reference arm alone.
MOST_COMPARISONS = 600


@dataclass(frozen=True)
class Source:
    """A study and what its directory holds of it."""

    label: str
    store: Store
    study: Study
    trials: Sequence[Trial]
    runs: pd.DataFrame
    results: Mapping[str, Mapping[str, Any]]
    command: str = ""

    @classmethod
    def read(cls, store: Store, label: str = "") -> Source:
        """Read a study directory, finished or not, without locking it.

        FileNotFoundError where it holds no study.
        """
        about = store.description()
        study = Study.from_description(about)
        trials = study.trials()
        found = Finished(store)
        found.read(dict.fromkeys(trial.owner for trial in trials))
        runs = results.frame(trials, found)
        return cls(label or study.name, store, study, trials, runs, found, about.get("command", ""))

    @property
    def wanted(self) -> list[str]:
        """The ids of the trials that the study runs."""
        return list(dict.fromkeys(trial.owner for trial in self.trials))


@dataclass(frozen=True)
class Arm:
    """One arm: its values on the axes `by`, its name in words, all of its runs."""

    key: tuple[Any, ...]
    name: str
    runs: pd.DataFrame

    @property
    def done(self) -> pd.DataFrame:
        return self.runs[self.runs["status"] == "done"]

    @property
    def ids(self) -> list[str]:
        """The trials whose results the finished runs carry."""
        done = self.done
        return list(done["same_as"].where(done["same_as"] != "", done["id"]))

    def values(self, metric: str) -> pd.Series:
        """Return the metric of the finished runs, without those that are no number."""
        return self.done[metric].dropna() if metric in self.runs else pd.Series(dtype=float)


@dataclass(frozen=True)
class Evidence:
    """Everything that the sections of a page read.

    Once `hurry` is set, what takes long (a proof) is left out of the page.
    """

    sources: Sequence[Source]
    runs: pd.DataFrame
    by: Sequence[str]
    hurry: Event = field(default_factory=Event)

    @cached_property
    def results(self) -> dict[str, Mapping[str, Any]]:
        """Results by trial id; of a trial in several studies the first one's."""
        found: dict[str, Mapping[str, Any]] = {}
        for source in self.sources:
            for trial_id, result in source.results.items():
                found.setdefault(trial_id, result)
        return found

    @cached_property
    def arms(self) -> list[Arm]:
        """The arms in the order of the table."""
        return [Arm(k, name(self.by, k), g) for k, g in arm_by_arm(self.runs, self.by)]

    @cached_property
    def homes(self) -> dict[str, Store]:
        """Which directory a trial is read from."""
        found: dict[str, Store] = {}
        for source in self.sources:
            for trial_id in source.wanted:
                if trial_id in source.results or trial_id not in found:
                    found.setdefault(trial_id, source.store)
        return found

    @cached_property
    def envs(self) -> dict[str, dict[str, Any]]:
        """Where each finished trial ran, by id."""
        return {i: self.homes[i].trial(i).env() for i in self.results}

    @cached_property
    def metrics(self) -> list[str]:
        """Every figure that some run has, the headlines first."""
        known = {*BOOKKEEPING, *TIMES, *COUNTS, *FIELDS}
        others = [c for c in map(str, self.runs) if c not in known and c not in HEADLINES]
        return [m for m in [*HEADLINES, *others] if self.runs[m].notna().any()]

    @cached_property
    def contrasts(self) -> list[Contrast | None]:
        """What each study is about, or the first two values of its first axis."""
        return [contrast_of(source.study, source.runs) for source in self.sources]

    @cached_property
    def main_metrics(self) -> list[str]:
        """The headline figures that were measured, and those the studies are about."""
        stated = [c.metric for c in self.contrasts if c is not None and c.metric in self.metrics]
        return list(dict.fromkeys([*(m for m in self.metrics if m in HEADLINES), *stated]))

    @property
    def focus(self) -> str | None:
        """The figure that the first study is about, or the first that was measured."""
        stated = self.contrasts[0]
        if stated is not None and stated.metric in self.main_metrics:
            return stated.metric
        return next(iter(self.main_metrics), None)

    @cached_property
    def reference(self) -> dict[str, Any] | None:
        """The arm's values that all others are compared with; None where pairs are few enough.

        Decided by the size of the grid alone, never by what was found in it.
        """
        arms, metrics = len(self.arms), max(1, len(self.main_metrics))
        if arms * (arms - 1) / 2 * metrics <= MOST_COMPARISONS or not self.arms:
            return None
        return {self.by[0]: self.arms[0].key[0]}

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """The family of all comparisons; empty where nothing can be compared."""
        return statistics.family(
            self.runs,
            self.by,
            metrics=self.main_metrics,
            pairs=self.reference or "one_axis",
        )

    @property
    def wanted(self) -> list[str]:
        """The ids of all trials of all studies."""
        return list(dict.fromkeys(i for source in self.sources for i in source.wanted))


def gather(sources: Sequence[Source]) -> Evidence:
    """Return the evidence of one study or several."""
    sources = [_whole(source) for source in sources]
    frames = [source.runs.assign(study=source.label) for source in sources]
    runs = frames[0] if len(frames) == 1 else _joined(frames)
    axes = list(dict.fromkeys(axis for source in sources for axis in source.study.axes))
    if len(sources) > 1:
        axes += [n for n, f in FIELDS.items() if n not in axes and f.metadata["identity"]]
    return Evidence(sources, runs, results.arms(runs, axes))


def contrast_of(study: Study, runs: pd.DataFrame) -> Contrast | None:
    """Return the study's contrast, or that of the first axis's first two values."""
    if study.contrast is not None or runs.empty:
        return study.contrast
    return statistics.default_contrast(runs, results.arms(runs, list(study.axes)))


def answer(study: Study, runs: pd.DataFrame) -> str:
    """Return the study's answer: its contrast in one sentence, with the interval."""
    contrast = contrast_of(study, runs)
    if runs.empty:
        return "No trial has finished yet."
    if contrast is not None and contrast.metric not in runs:
        return f"No run has the figure {contrast.metric}, which the study is about."
    return statistics.sentence(statistics.compare(runs, contrast) if contrast else None)


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the frames one below the other; a trial that several hold is kept once."""
    filled = [frame.dropna(axis=1, how="all") for frame in frames]
    runs = pd.concat(filled, ignore_index=True)
    labels = runs.groupby("id", sort=False)["study"].agg(lambda s: " + ".join(dict.fromkeys(s)))
    runs = runs.assign(order=runs["status"] != "done").sort_values("order", kind="stable")
    runs = runs.drop_duplicates("id").sort_index().drop(columns="order")
    columns = list(dict.fromkeys(c for frame in frames for c in frame))
    return runs.assign(study=runs["id"].map(labels)).reindex(columns=columns).reset_index(drop=True)


def _whole(source: Source) -> Source:
    """Return the source with every column a section asks for, figures as finite numbers."""
    columns = (*BOOKKEEPING, *FIELDS, *HEADLINES, *TIMES)
    runs = source.runs.reindex(columns=list(dict.fromkeys([*source.runs, *columns])))
    figures = [c for c in map(str, runs) if c not in BOOKKEEPING and c not in FIELDS]
    numbers = runs[figures].apply(pd.to_numeric, errors="coerce")
    runs[figures] = numbers.replace([math.inf, -math.inf], math.nan)
    return replace(source, runs=runs)

"""A study: the question, the fixed choices, the axes; and the trials that answer it.

study = Study(name="strides", question="...", base=Config(), axes={"stride": (1, 2)})
for trial in study.trials():
    trial.config, trial.id, trial.same_as
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnjax import build, spec
from cnnjax.config import FIELDS, Config, from_dict, identity, to_dict, trial_id
from cnnjax.data import Dataset
from cnnjax.layers import pooling


@dataclass(frozen=True)
class Contrast:
    """The difference a study is about: `metric` of the arms `arm` minus that of `against`.

    `where` keeps part of the grid. Example: Contrast("accuracy_away", {"pool": "aps"},
    {"pool": "max"}, {"stride": 3}).
    """

    metric: str
    arm: Mapping[str, Any]
    against: Mapping[str, Any]
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of trials: every combination of the axes' values, over the choices of `base`."""

    name: str
    question: str
    base: Config
    axes: Mapping[str, tuple[Any, ...]]
    contrast: Contrast | None = None

    def __post_init__(self) -> None:
        for name, values in self.axes.items():
            spec.find(FIELDS, name, "axis")
            if not values:
                raise ValueError(f"axis {name}: expected at least one value")

    def trials(self) -> list[Trial]:
        """Return the trials, the first axis slowest; equal configurations appear once."""
        configs = []
        for values in itertools.product(*self.axes.values()):
            choices = dict(zip(self.axes, values, strict=True))
            configs.append(dataclasses.replace(self.base, **choices))
        return [Trial(config) for config in dict.fromkeys(configs)]

    def describe(self) -> dict[str, Any]:
        """Return what study.json holds; `fixed` decides whether a directory is this study's."""
        fixed = {k: v for k, v in identity(self.base).items() if k not in self.axes}
        return {
            "name": self.name,
            "question": self.question,
            "fixed": fixed,
            "base": to_dict(self.base),
            "axes": {k: list(v) for k, v in self.axes.items()},
            "contrast": dataclasses.asdict(self.contrast) if self.contrast else None,
        }

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> Study:
        """Inverse of `describe`."""
        axes = {
            name: tuple(tuple(v) if isinstance(v, list) else v for v in axis)
            for name, axis in values["axes"].items()
        }
        contrast = values["contrast"] and Contrast(**values["contrast"])
        base = from_dict(values["base"])
        return cls(
            name=values["name"],
            question=values["question"],
            base=base,
            axes=axes,
            contrast=contrast,
        )

    def changed(self, choices: Mapping[str, tuple[Any, ...]]) -> Study:
        """Return the study with other values: several make an axis, one fixes the field."""
        fixed = {k: v[0] for k, v in choices.items() if len(v) == 1}
        axes = {k: choices.get(k, v) for k, v in self.axes.items() if k not in fixed}
        axes |= {k: v for k, v in choices.items() if k not in fixed}
        return dataclasses.replace(self, base=dataclasses.replace(self.base, **fixed), axes=axes)


@dataclass(frozen=True)
class Trial:
    """One cell of the grid; `runs` is the trial that computes it."""

    config: Config

    @property
    def id(self) -> str:
        return trial_id(self.config)

    @property
    def runs(self) -> Config:
        """The configuration to train: this one, or the simpler arm that is the same function."""
        config = self.config
        pool = build.downsampling(config)
        if pool.method is None or pool.stride is None or config.pool_position is not None:
            return config  # each site has its own pool, or the place was asked for
        arm = pooling.canonical_arm(config.pool or pool.method, pool.window, pool.stride)
        return config if arm is None else dataclasses.replace(config, pool=arm)

    @property
    def same_as(self) -> str | None:
        """The id of another trial that is the same function, None for most."""
        other = trial_id(self.runs)
        return None if other == self.id else other


def check(trials: list[Trial], dataset: Dataset) -> None:
    """Raise ValueError naming the first trial whose network does not fit the images."""
    for config in dict.fromkeys(dataclasses.replace(t.runs, seed=0) for t in trials):
        build.build_net(config, dataset.num_classes, dataset.image_shape)

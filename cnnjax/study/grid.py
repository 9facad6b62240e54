"""A study: the question, the fixed choices, the axes; and the trials that answer it.

study = Study(name="strides", question="...", base=Config(), axes={"stride": (1, 2)})
for trial in study.trials():
    trial.config, trial.id, trial.same_as

Axes are multiplied, apart from those that are `zipped`; conditions leave cells out; numeric axes
may be sampled:

    Study(..., axes={"stride": (2, 3), "window": (3, 5), "seed": (0, 1)},
          zipped=(("stride", "window"),),
          conditions=(Condition("stride 3 only in circular maps", lambda c: ...),))
    axes=sampled({"lr": Range(1e-4, 1e-1, log=True)}, count=16, seed=0) | {"seed": (0, 1, 2)}
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cnnjax import build, optimization, spec
from cnnjax.config import FIELDS, Config, from_dict, identity, to_dict, trial_id
from cnnjax.data import Dataset
from cnnjax.layers import pooling
from cnnjax.nets import NETS
from cnnjax.nets.blocks import Downsampling
from cnnjax.ops import padding as pads


@dataclass(frozen=True)
class Contrast:
    """The difference a study is about: `metric` of the arms `arm` minus that of `against`.

    `where` keeps part of the grid. `expected` is the sign that `source` lets one expect: 1, -1, or
    0 for a difference below `margin`. Example: Contrast("accuracy_away", {"pool": "aps"},
    {"pool": "max"}, {"stride": 3}, expected=1, source="Chaman and Dokmanic 2021").
    """

    metric: str
    arm: Mapping[str, Any]
    against: Mapping[str, Any]
    where: Mapping[str, Any] = field(default_factory=dict)
    expected: int | None = None
    source: str = ""
    margin: float | None = None

    def __post_init__(self) -> None:
        # Here and not in the answer, which is given when everything has been trained.
        for name in [*self.arm, *self.against, *self.where]:
            spec.find(FIELDS, name, "contrast")
        if dict(self.arm) == dict(self.against):
            raise ValueError(f"contrast: expected two arms that differ, got {dict(self.arm)} twice")
        if self.metric in FIELDS:
            raise ValueError(f"contrast: expected a figure to compare, got the knob {self.metric}")
        if self.margin is not None and not self.margin > 0:
            raise ValueError(f"margin: expected a number > 0, got {self.margin!r}")
        if self.expected not in (None, -1, 0, 1):
            raise ValueError(f"expected: expected 1, -1, 0 or None, got {self.expected!r}")
        if self.expected == 0 and self.margin is None:
            raise ValueError("margin: expected=0 needs the difference that would not matter")


@dataclass(frozen=True)
class Condition:
    """Which cells of the product belong to the grid, in words and as a predicate of the Config."""

    text: str
    holds: Callable[[Config], bool] = field(compare=False)

    def keeps(self, config: Config) -> bool:
        """Return whether a cell belongs to the grid; ValueError where the predicate fails on it."""
        try:
            return bool(self.holds(config))
        except Exception as error:
            kind = type(error).__name__
            raise ValueError(f"condition {self.text!r}: {kind}: {error}") from error


@dataclass(frozen=True)
class Range:
    """The values that a sampled axis may take: from low to high, evenly or on a log scale."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            least = "0 < low < high" if self.log else "low < high"
            raise ValueError(f"range: expected {least}, got {self.low} to {self.high}")

    def at(self, share: float) -> float:
        """Return the value at this share, from 0 to 1, of the range."""
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.whole else float(f"{value:.6g}")


def sampled(
    ranges: Mapping[str, Range], *, count: int, method: str = "latin_hypercube", seed: int = 0
) -> dict[str, tuple[Any, ...]]:
    """Return `count` values for every axis, drawn together; zip the axes where they are several.

    method: "latin_hypercube" (every axis hits each of `count` equal slices once; McKay 1979) or
    "random", whose first values stay the same when `count` grows. The same seed draws the same.
    """
    spec.find(SAMPLERS, method, "method")
    if count < 1 or not ranges:
        raise ValueError(f"count: expected at least one value of one axis, got {count}")
    points = SAMPLERS[method](len(ranges), count, np.random.default_rng(seed))
    columns = zip(ranges.items(), points.T, strict=True)
    return {name: tuple(map(limits.at, shares)) for (name, limits), shares in columns}


def _latin(axes: int, count: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.stats import qmc  # a second to import, which other studies need not wait for

    return qmc.LatinHypercube(axes, rng=rng).random(count)


def _random(axes: int, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random((count, axes))


SAMPLERS: Mapping[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "latin_hypercube": _latin,
    "random": _random,
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of trials: every combination of the axes' values, over the choices of `base`.

    zipped: groups of axes whose values go together, first with first. conditions: all must hold.
    """

    name: str
    question: str
    base: Config
    axes: Mapping[str, tuple[Any, ...]]
    contrast: Contrast | None = None
    zipped: tuple[tuple[str, ...], ...] = ()
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for told in ("name", "question"):
            if not isinstance(getattr(self, told), str):
                raise TypeError(f"{told}: expected text, got {getattr(self, told)!r}")
        for name, values in self.axes.items():
            spec.find(FIELDS, name, "axis")
            if isinstance(values, str) or not values:
                raise ValueError(f"axis {name}: expected a tuple of at least one value, {values!r}")
        for group in self.zipped:
            self._check_zipped(group)

    def _check_zipped(self, group: tuple[str, ...]) -> None:
        for name in group:
            spec.find(self.axes, name, "zipped")
            if sum(name in other for other in self.zipped) > 1:
                raise ValueError(f"zipped: {name} stands in two groups")
        counts = {name: len(self.axes[name]) for name in group}
        if len(set(counts.values())) > 1:
            text = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"zipped: expected equally many values, got {text}")

    @property
    def factors(self) -> list[tuple[str, ...]]:
        """The axes that vary apart from each other, seeds aside; those that are zipped are one."""
        groups = dict.fromkeys(self._group(name) for name in self.axes)
        return [group for group in groups if "seed" not in group and len(self.axes[group[0]]) > 1]

    def cells(self) -> list[Config]:
        """Return every configuration of the product, conditions aside, the first axis slowest."""
        factors: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        for name in self.axes:
            group = self._group(name)
            factors[group] = list(zip(*(self.axes[own] for own in group), strict=True))
        names = [name for group in factors for name in group]
        rows = (itertools.chain(*values) for values in itertools.product(*factors.values()))
        return [
            dataclasses.replace(self.base, **dict(zip(names, row, strict=True))) for row in rows
        ]

    def _group(self, name: str) -> tuple[str, ...]:
        return next((group for group in self.zipped if name in group), (name,))

    def trials(self) -> list[Trial]:
        """Return the trials, the first axis slowest; equal configurations appear once."""
        return [
            Trial(config)
            for config in dict.fromkeys(self.cells())
            if all(condition.keeps(config) for condition in self.conditions)
        ]

    def describe(self) -> dict[str, Any]:
        """Return what study.json holds; `fixed` decides whether a directory is this study's."""
        fixed = {k: v for k, v in identity(self.base).items() if k not in self.axes}
        cells = list(dict.fromkeys(self.cells())) if self.conditions else []
        return {
            "name": self.name,
            "question": self.question,
            "fixed": fixed,
            "base": to_dict(self.base),
            "axes": {k: list(v) for k, v in self.axes.items()},
            "contrast": dataclasses.asdict(self.contrast) if self.contrast else None,
            "zipped": [list(group) for group in self.zipped],
            "conditions": [
                {"text": c.text, "left_out": [trial_id(x) for x in cells if not c.keeps(x)]}
                for c in self.conditions
            ],
        }

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> Study:
        """Inverse of `describe`; of a condition it knows the words and the cells it left out.

        ValueError for what `describe` did not write.
        """
        try:
            return cls._described(values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"study.json: no description of a study by this version of cnnjax ({text})"
            ) from None

    @classmethod
    def _described(cls, values: Mapping[str, Any]) -> Study:
        axes = {name: tuple(_tuples(axis)) for name, axis in values["axes"].items()}
        contrast = values["contrast"] and Contrast(**_tuples(values["contrast"]))
        base = from_dict(values["base"])
        return cls(
            name=values["name"],
            question=values["question"],
            base=base,
            axes=axes,
            contrast=contrast,
            zipped=tuple(tuple(group) for group in values.get("zipped", ())),
            conditions=tuple(_remembered(**c) for c in values.get("conditions", ())),
        )

    def changed(self, choices: Mapping[str, tuple[Any, ...]]) -> Study:
        """Return the study with other values: several make an axis, one fixes the field."""
        fixed = {k: v[0] for k, v in choices.items() if len(v) == 1}
        axes = {k: choices.get(k, v) for k, v in self.axes.items() if k not in fixed}
        axes |= {k: v for k, v in choices.items() if k not in fixed}
        left = (tuple(name for name in group if name in axes) for group in self.zipped)
        return dataclasses.replace(
            self,
            base=dataclasses.replace(self.base, **fixed),
            axes=axes,
            zipped=tuple(group for group in left if len(group) > 1),
        )


def _tuples(value: Any) -> Any:
    """Return what JSON made lists of as the tuples it was."""
    if isinstance(value, Mapping):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _remembered(text: str, left_out: list[str]) -> Condition:
    ids = frozenset(left_out)
    return Condition(text, lambda config: trial_id(config) not in ids)


@dataclass(frozen=True)
class Trial:
    """One cell of the grid; `runs` is the trial that computes it."""

    config: Config

    @cached_property
    def id(self) -> str:
        return trial_id(self.config)

    @cached_property
    def runs(self) -> Config:
        """The configuration to train: this one, or the simpler arm that is the same function."""
        config = self.config
        if config.last_pool == config.pool:
            config = dataclasses.replace(config, last_pool=None)
        unread = optimization.unread(config)
        if unread:
            config = dataclasses.replace(config, **unread)
        pool = build.downsampling(config)
        if pool.method is None or pool.stride is None or config.pool_position is not None:
            return config  # each site has its own pool, or the place was asked for
        text = config.pool or pool.method
        arm = pooling.canonical_arm(text, pool.window, pool.stride, pool.padding)
        if arm is None or not _stays(config, pool, arm):
            return config
        return dataclasses.replace(config, pool=arm)

    @cached_property
    def same_as(self) -> str | None:
        """The id of another trial that is the same function, None for most."""
        if self.runs is self.config:
            return None
        other = trial_id(self.runs)
        return None if other == self.id else other

    @property
    def owner(self) -> str:
        """The id its result is kept under: its own, or that of the trial it is the same as."""
        return self.same_as or self.id


def _stays(config: Config, pool: Downsampling, arm: str) -> bool:
    """Return whether `arm`, which may sit elsewhere in a stage, does there what `pool` does.

    Sampling commutes with a rectifier, not with normalisation.
    """
    card, _ = pooling.parse(arm)
    norm = config.norm or NETS[config.net].defaults.get("norm")
    same_place = card.position == pool.place
    return same_place or norm == "none" or pads.pair(pool.stride, "stride") == (1, 1)


def check(trials: list[Trial], dataset: Dataset) -> None:
    """Raise ValueError naming the first trial whose network does not fit the images."""
    for config in dict.fromkeys(dataclasses.replace(t.runs, seed=0) for t in trials):
        build.build_net(config, dataset.num_classes, dataset.image_shape)

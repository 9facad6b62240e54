"""Which of a study's trials run now, and in which order.

    choice = Choice(only="pool=max|aps,stride=2", max_trials=10, priority="seed")
    choice.of(study.trials(), missing)      # the configs to run, first things first

What is not chosen stays missing: the same study without a choice runs it later.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cnnjax import build, spec
from cnnjax import config as configs
from cnnjax.config import FIELDS, Config, trial_id
from cnnjax.study.grid import Trial

LEAST_ID = 4


def relative_cost(config: Config) -> float:
    """Return a guess of a trial's cost: dear trials first keeps the workers evenly busy."""
    stride = config.stride or 2
    rows, columns = stride if isinstance(stride, tuple) else (stride, stride)
    return build.epochs(config) / (rows * columns)


def in_order(configs: Sequence[Config]) -> list[Config]:
    """Return one trial of every program, then the repetitions; dear trials first in each round.

    Trials that differ in the seed alone are one program. Started side by side, each would compile
    it; later ones find it compiled. Dear trials first keep the workers evenly busy.
    """
    rounds: Counter[Config] = Counter()
    keys = []
    for config in configs:
        program = dataclasses.replace(config, seed=0)
        keys.append((rounds[program], -relative_cost(config)))
        rounds[program] += 1
    order = sorted(range(len(configs)), key=keys.__getitem__)
    return [configs[index] for index in order]


Order = Callable[[Sequence[Config]], list[Config]]
PRIORITIES: Mapping[str, Order] = {
    "programs": in_order,
    "dear": lambda configs: sorted(configs, key=relative_cost, reverse=True),
    "cheap": lambda configs: sorted(configs, key=relative_cost),
    "seed": lambda configs: sorted(configs, key=lambda config: config.seed),
    "grid": list,
}


@dataclass(frozen=True)
class Choice:
    """only: `field=value|value` and trial ids, commas between; None for all.

    priority: "programs" (nothing is compiled twice), "dear" first (workers end together), "cheap"
    first, "seed" (all arms of the first seed before the next: an early picture of everything) or
    "grid" (as listed). max_trials: at most.
    """

    only: str | None = None
    max_trials: int | None = None
    priority: str = "programs"

    def __post_init__(self) -> None:
        spec.find(PRIORITIES, self.priority, "priority")
        if self.max_trials is not None and self.max_trials < 1:
            raise ValueError(f"max_trials: expected an integer >= 1, got {self.max_trials}")

    def of(self, trials: Sequence[Trial], missing: Sequence[Config]) -> list[Config]:
        """Return those of the missing configs that run now, in order.

        A trial that is the same function as another stands for it. ValueError where `only` matches
        no trial.
        """
        kept = list(missing)
        if self.only is not None:
            matches = _matcher(self.only)
            wanted = {trial_id(trial.runs) for trial in trials if matches(trial)}
            if not wanted:
                raise ValueError(f"only: no trial of this grid matches {self.only!r}")
            kept = [config for config in missing if trial_id(config) in wanted]
        return PRIORITIES[self.priority](kept)[: self.max_trials]


def _matcher(only: str) -> Callable[[Trial], bool]:
    """Return the predicate of `only`: every field as given, and one of the ids where there are."""
    fields: dict[str, tuple[object, ...]] = {}
    ids: list[str] = []
    for part in only.split(","):
        name, equals, values = part.partition("=")
        if equals:
            spec.find(FIELDS, name, "only")
            if name in fields:
                raise ValueError(f"only: {name} is given twice; write {name}=value|value")
            fields[name] = tuple(configs.read(name, text) for text in values.split("|"))
        elif len(part) >= LEAST_ID and set(part) <= set("0123456789abcdef"):
            ids.append(part)
        else:
            raise ValueError(
                f"only: expected field=value|value or a trial id of at least {LEAST_ID} digits, "
                f"got {part!r}"
            )
    starts = tuple(ids)
    return lambda trial: (
        all(getattr(trial.config, name) in values for name, values in fields.items())
        # Of a trial that runs as another the directory and a dry run have the other's id.
        and (not ids or trial.id.startswith(starts) or trial.owner.startswith(starts))
    )

"""Confound cards of a report, kept in the study directory, for each takes a fraction of a second.

    found, problem = read_cards(evidence)      # arm's name -> {"parameters": 3642, ...}

cards.json holds them by the trial id of the arm at seed 0; a card is a fact of the configuration.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from cnnjax.config import Config, trial_id
from cnnjax.study.confounds import COLUMNS, confounds
from cnnjax.study.grid import Study
from cnnjax.study.report.evidence import Arm, Evidence
from cnnjax.study.report.kept import keep, kept

__all__ = ["COLUMNS", "read_cards"]

KEPT = "cards.json"
FACTS = frozenset(COLUMNS) - {"seconds"}
MOST_CARDS = 64

Card = dict[str, Any]


def read_cards(evidence: Evidence) -> tuple[dict[str, Card], str]:
    """Return a card an arm that has one, and what kept others from having one, or "".

    A network needs its data set's shape: where the files are missing, its card is missing.
    """
    configs = {t.id: t.config for s in evidence.sources for t in s.trials}
    found: dict[str, Card] = {}
    problems: dict[str, None] = {}
    known = kept(evidence, KEPT, FACTS)
    new = 0
    for arm in evidence.arms[:MOST_CARDS]:
        config = dataclasses.replace(configs[arm.runs["id"].iloc[0]], seed=0)
        key = trial_id(config)
        if key not in known:
            try:
                known[key] = card(config)
                new += 1
            except (ValueError, OSError) as error:
                problems[f"No card for {arm.name}: {error}"] = None
        if key in known:
            found[arm.name] = {**known[key], "seconds": _seconds(arm)}
    if new:
        keep(evidence, KEPT, known)
    if len(evidence.arms) > MOST_CARDS:
        problems[f"Cards of the first {MOST_CARDS} of {len(evidence.arms)} arms."] = None
    return found, " ".join(list(problems)[:3])


def card(config: Config) -> Card:
    """Return the facts of one arm; its network is traced."""
    study = Study(name="card", question="", base=config, axes={"seed": (0,)})
    row = confounds(study).to_dict("records")[0]
    return {name: _plain(row[name]) for name in FACTS}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: no number is null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _seconds(arm: Arm) -> float | None:
    own = arm.done[arm.done["same_as"] == ""]["seconds"]
    mean = own.astype(float).mean()
    return None if math.isnan(mean) else float(mean)

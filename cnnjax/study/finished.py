"""Finished trials as tables, figures and report need them: each result file read once, held small.

    finished = Finished(store)
    finished.read(ids)                     # those not held yet
    finished[trial_id]["metrics"], finished[trial_id]["places"]

A study of 10,000 trials has 10,000 results whose configurations the grid knows already and whose
test shifts, guarantees and checksums are mostly the same: the former are dropped, the latter kept
as one object.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cnnjax.study.store import Store

Result = Mapping[str, Any]
# Parts that no two trials have in common; what they hold is looked at one by one.
OWN = {"id", "metrics", "places", "accuracy", "variables_sha256"}


class Finished(Mapping[str, Result]):
    """Trial id -> its result without `config`; of a Store, filled by `read` and `add`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._held: dict[str, Result] = {}
        self._parts: dict[str, Any] = {}

    def __getitem__(self, trial_id: str) -> Result:
        return self._held[trial_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def read(self, trial_ids: Iterable[str]) -> None:
        """Hold the results of those trials that are finished and not held yet."""
        for trial_id, result in self.store.each(k for k in trial_ids if k not in self._held):
            self.add(trial_id, result)

    def add(self, trial_id: str, result: Result) -> None:
        """Hold a result that was just read."""
        self._held[trial_id] = {
            sys.intern(name): self._small(name, part)
            for name, part in result.items()
            if name != "config"
        }

    def _small(self, name: str, part: Any) -> Any:
        if name in OWN and isinstance(part, dict):
            return {sys.intern(k): self._small(k, v) for k, v in part.items()}
        if name in OWN or isinstance(part, float):
            return part
        return self._parts.setdefault(repr(part), part)

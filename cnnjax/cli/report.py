"""usage: cnnjax report DIR

Write runs.csv, runs.parquet, metrics.parquet, the figures and report.html of a study again, from
the results in its directory; nothing is trained.
"""

from __future__ import annotations

from rich.console import Console

from cnnjax.cli.flags import Flags
from cnnjax.cli.study import show
from cnnjax.study.grid import Study
from cnnjax.study.run import conclude
from cnnjax.study.store import Store


def main(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where a trial of the study failed."""
    rest = Flags("report", __doc__ or "").parse(words)
    if rest is None:
        return 0
    if len(rest) != 1:
        raise ValueError(f"expected one study directory, got {' '.join(rest) or 'none'}")
    store = Store(rest[0])
    study = Study.from_description(store.description())
    with store.lock():
        outcome = conclude(store, study, study.trials())
    return show(outcome, study, Console())

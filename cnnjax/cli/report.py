"""usage: cnnjax report DIR [DIR...] [--out FILE] [--watch]

Write the page of a study, report.html, from the results in its directory; nothing is trained.

  cnnjax report runs/mine                         tables, figures and runs/mine/report.html, again
  cnnjax report runs/mine --watch                 while the study runs: the page follows it
  cnnjax report runs/a runs/b --out=both.html     one page over several studies

Of several studies, runs of one configuration (seeds apart) are one arm. --watch writes the page
alone, locks nothing, and ends when the study is complete or at Ctrl-C (status 130). Exit status: 0,
or 1 where a trial failed, 2 for a mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from cnnjax.cli.flags import Flags
from cnnjax.cli.statuses import FAILED
from cnnjax.cli.study import show
from cnnjax.study import report
from cnnjax.study.files import place
from cnnjax.study.grid import Study
from cnnjax.study.run import conclude
from cnnjax.study.store import Store

PAGE = "report.html"


def main(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where a trial of the study failed."""
    flags = Flags("report", __doc__ or "")
    flags.string("out", None, "where the page goes (default: DIR/report.html)")
    flags.boolean("watch", "write the page anew as results arrive")
    rest = flags.parse(words)
    if rest is None:
        return 0
    if not rest:
        raise ValueError("expected a study directory, got none")
    if len(rest) > 1 and not flags.out:
        raise ValueError("out: expected --out=FILE with several directories, got none")
    stores = [Store(name) for name in dict.fromkeys(rest)]
    path = place(flags.out) if flags.out else stores[0].root / PAGE
    if path.is_dir():
        raise ValueError(f"out: expected a file, got the directory {path}")
    if flags.watch:
        return follow(stores, path)
    if len(stores) == 1 and not flags.out:
        return again(stores[0])
    return write(stores, path, path.with_name(f"{path.stem}_figures"))


def again(store: Store) -> int:
    """Write everything that a study leaves beside its trials, and print its table."""
    study = Study.from_description(store.description())
    if not store.results({t.same_as or t.id for t in study.trials()}):
        return write([store], store.root / PAGE, store.root / "figures")
    with store.lock():
        outcome = conclude(store, study, study.trials())
    return show(outcome, study, Console())


def write(stores: Sequence[Store], path: Path, figures: Path) -> int:
    """Write a page and its figures from what the studies have; their tables stay as they are."""
    evidence = report.read_all(stores, labels(stores))
    report.write_all(evidence, path, figures)
    print(f"report: {path}")
    return status(evidence)


def follow(stores: Sequence[Store], path: Path) -> int:
    """Write the page until every trial has ended."""
    read = partial(report.read_all, stores, labels(stores))
    try:
        evidence = report.watch(read, path, tell=partial(tell, path))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{path} stays as it is; the same command follows the study again"
        ) from None
    return status(evidence)


def tell(path: Path, evidence: report.Evidence) -> None:
    """Print how far the study is."""
    print(f"{path}: {len(evidence.results)} of {len(evidence.wanted)} trials", flush=True)


def status(evidence: report.Evidence) -> int:
    """Return the exit status: 1 where a trial failed."""
    return FAILED if (evidence.runs["status"] == "failed").any() else 0


def labels(stores: Sequence[Store]) -> list[str]:
    """Return a name for each study: the last part of its path, all of it where two share that."""
    names = [store.root.name for store in stores]
    return names if len(set(names)) == len(names) else [str(store.root) for store in stores]

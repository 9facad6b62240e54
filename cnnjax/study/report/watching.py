"""A page that follows a study: written anew whenever a trial ends, until the last one has.

    watch(stores, path, every=2.0)

Nothing is locked, and nothing is written but the page and what it worked out (cards.json,
certificates.json), so the study that runs is not disturbed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cnnjax.study.report.evidence import Evidence, Source, gather
from cnnjax.study.report.writing import write_page
from cnnjax.study.store import Store

RELOAD_SECONDS = 5
Read = Callable[[], Evidence]
Tell = Callable[[Evidence], object]


def watch(
    read: Read, path: Path, *, every: float = 2.0, tell: Tell = lambda evidence: None
) -> Evidence:
    """Write the page until the study is complete; return the last evidence.

    However it ends (Ctrl-C too), the page that stays does not load itself any more.
    """
    seen = _stamps(read())
    evidence = read()  # in this order, here and below: what comes while reading is seen next
    try:
        while True:
            write_page(evidence, path, reload_seconds=RELOAD_SECONDS)
            tell(evidence)
            if is_complete(evidence):
                return evidence
            while (now := _stamps(evidence)) == seen:
                time.sleep(every)
            evidence, seen = read(), now
    except KeyboardInterrupt:
        evidence.hurry.set()
        raise
    finally:
        write_page(evidence, path)


def is_complete(evidence: Evidence) -> bool:
    """Return whether every trial has a result."""
    return len(evidence.results) >= len(evidence.wanted)


def read_all(stores: Sequence[Store], labels: Sequence[str]) -> Evidence:
    """Return the evidence of the studies as they are now."""
    pairs = zip(stores, labels, strict=True)
    return gather([Source.read(store, label) for store, label in pairs])


def _stamps(evidence: Evidence) -> list[tuple[str, float]]:
    """Return the results there are and when each was written, without reading them.

    study.json is among them: a grid may grow. A failed trial may be run again.
    """
    found = []
    for source in evidence.sources:
        root = source.store.root
        names = [root / "trials" / i / "result.json" for i in source.wanted]
        for path in [root / "study.json", *names]:
            try:
                found.append((str(path), path.stat().st_mtime))
            except FileNotFoundError:
                continue
    return found

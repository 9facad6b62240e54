"""What a report worked out before, kept as JSON in the study directory by trial id.

known = kept(evidence, "cards.json", {"flops", "parameters"})
keep(evidence, "cards.json", known | new)
"""

from __future__ import annotations

import contextlib
from collections.abc import Set as AbstractSet
from typing import Any

from cnnjax.study.files import read_object, write_json
from cnnjax.study.report.evidence import Evidence

Entry = dict[str, Any]


def kept(evidence: Evidence, name: str, fields: AbstractSet[str]) -> dict[str, Entry]:
    """Return the entries of all studies that have these fields."""
    known: dict[str, Entry] = {}
    for source in evidence.sources:
        known |= read_object(source.store.root / name) or {}
    return {k: v for k, v in known.items() if isinstance(v, dict) and fields <= set(v)}


def keep(evidence: Evidence, name: str, entries: dict[str, Entry]) -> None:
    """Keep the entries in the first study's directory, where it can be written."""
    with contextlib.suppress(OSError):  # they are kept to be quick, and can be made again
        write_json(evidence.sources[0].store.root / name, entries)

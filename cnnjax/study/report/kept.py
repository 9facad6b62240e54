"""What a report worked out before, kept as JSON in the study directory by trial id.

known = kept(evidence, "cards.json", {"flops", "parameters"})
keep(evidence, "cards.json", known | new)

What other code worked out, an older cnnjax or JAX, is as good as nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from cnnjax.environment import code
from cnnjax.study.files import read_object, write_json
from cnnjax.study.report.evidence import Evidence

Entry = dict[str, Any]

# What no directory took: one process asks twice, for the page and beside it.
_held: dict[Path, dict[str, Entry]] = {}


def kept(evidence: Evidence, name: str, fields: AbstractSet[str]) -> dict[str, Entry]:
    """Return the entries of all studies that have these fields."""
    known: dict[str, Entry] = {}
    for path in (source.store.root / name for source in evidence.sources):
        with contextlib.suppress(OSError):  # what may not be read is as good as nothing
            known |= _entries(read_object(path) or {})
        known |= _held.get(path, {})
    return {k: v for k, v in known.items() if isinstance(v, dict) and fields <= set(v)}


def keep(evidence: Evidence, name: str, entries: dict[str, Entry]) -> None:
    """Keep the entries in the first study's directory, or where it cannot be written in memory."""
    path = evidence.sources[0].store.root / name
    try:
        write_json(path, {"code": code(), "entries": entries})
    except OSError:  # they are kept to be quick, and can be made again
        _held[path] = entries


def _entries(content: Entry) -> Entry:
    entries = content.get("entries") if content.get("code") == code() else None
    return entries if isinstance(entries, dict) else {}

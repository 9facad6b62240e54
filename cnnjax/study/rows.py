"""The first lines of every result.json, and the whole of one whose trial never got to the end.

row = header(config) | {"status": "done", "metrics": {...}}
row = failed(config, "diverged: the loss is nan")
"""

from __future__ import annotations

from typing import Any

from cnnjax.config import SCHEMA, Config, to_dict, trial_id


def header(config: Config) -> dict[str, Any]:
    """Return what names a result: id, schema and configuration."""
    return {"id": trial_id(config), "schema": SCHEMA, "config": to_dict(config)}


def failed(config: Config, reason: str) -> dict[str, Any]:
    """Return the result of a trial that failed."""
    return header(config) | {"status": "failed", "reason": reason}

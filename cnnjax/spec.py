"""Names and parameters in one word: `lp:p=3:reduce=sum` -> ("lp", {"p": 3, "reduce": "sum"}).

A *spec* picks a row of a table (a pooling method, a data set, a head) and sets that row's own
parameters, so that a whole arm of a study stays one scalar: one flag value, one table cell.

    name, params = spec.parse("lp:p=3:reduce=sum")
    card = spec.find(POOLS, name, "pool")        # ValueError naming the nearest rows
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Row = TypeVar("Row")


def find(table: Mapping[str, Row], name: object, argument: str) -> Row:
    """Return `table[name]`; an unknown name raises ValueError with the nearest names first."""
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected a name, got {name!r} of type {type(name).__name__}")
    if name not in table:
        raise ValueError(f"{argument}: unknown name {name!r}; {suggest(name, table)}")
    return table[name]


def suggest(name: str, known: Iterable[str]) -> str:
    """Return 'did you mean ...' where something is near, else the whole list."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}? (all: {', '.join(known)})"
    return f"choose from {', '.join(known)}"


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split `name:key=value:key=value`; a bare second part is the key "path" (`folder:DIR`).

    Values read as int, float, bool (true/false) or else text. A path may have colons and, where
    what stands before it is no word, equal signs (`folder:/at/12:30/lr=1:size=32`). Raises
    ValueError on an empty name, an empty key or a key given twice.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected a name, got {text!r} of type {type(text).__name__}")
    name, *parts = text.split(":")
    params: dict[str, Any] = {}
    last = None
    for position, part in enumerate(parts):
        key, equals, value = part.partition("=")
        if not (equals and key.isidentifier()):
            if last == "path":
                params["path"] += f":{part}"
                continue
            if position or not part or part.startswith("="):
                raise ValueError(f"{text!r}: expected key=value after ':', got {part!r}")
            key, value = "path", part
        if key in params:
            raise ValueError(f"{text!r}: {key!r} is given twice")
        params[key] = value if key == "path" else literal(value)
        last = key
    if not name:
        raise ValueError(f"{text!r}: the name before ':' is empty" if text else "the name is empty")
    return name, params


def format(name: str, params: Mapping[str, Any]) -> str:
    """Inverse of `parse`, keys in alphabetical order, so that equal specs read the same."""
    return ":".join([name, *(f"{key}={_text(params[key])}" for key in sorted(params))])


def literal(text: str) -> Any:
    """Read int, float or true/false from text; anything else stays text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""The sources of methods: keys of references.bib -> BibTeX entries and titles.

citations.entries()["zhang2019"]
citations.title("zhang2019")      # "Making Convolutional Networks Shift-Invariant Again"
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources


@cache
def entries() -> dict[str, str]:
    """Return every BibTeX entry of references.bib by its key."""
    text = resources.files("cnnjax.layers").joinpath("references.bib").read_text("utf-8")
    found = re.finditer(r"^@\w+\{(\w+),.*?^\}", text, flags=re.MULTILINE | re.DOTALL)
    return {match[1]: match[0] for match in found}


def title(key: str) -> str:
    """Return the title of an entry as plain text."""
    match = re.search(r"title\s*=\s*\{(.*)\},", entries()[key])
    if match is None:
        raise ValueError(f"references.bib: entry {key!r} has no title")
    return re.sub(r"[{}\\]", "", match[1])

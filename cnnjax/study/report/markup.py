"""HTML and SVG as values: what is not Markup is escaped, so a name with < or & stays a name.

tag("td", "a < b", class_="number")        # <td class="number">a &lt; b</td>
tag("p", "see ", tag("b", "this"))         # Markup inside Markup is left alone
table(["arm", "n"], [["max", 3]], numbers=1, ident="arms")
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from numbers import Integral
from typing import Any

VOID = {"br", "circle", "input", "line", "path", "polyline", "rect"}
ABSENT = "–"


class Markup(str):
    """Text that is markup already."""


def tag(name: str, *content: Any, **attributes: Any) -> Markup:
    """Return an element; attributes that are None or False are left out, `data_x` is data-x."""
    words = [name]
    for key, value in attributes.items():
        own = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(own)
        elif value is not None and value is not False:
            words.append(f'{own}="{escape(str(value))}"')
    start = " ".join(words)
    if name in VOID and not content:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{join(content)}</{name}>")


def join(parts: Iterable[Any], between: str = "") -> Markup:
    """Return the parts one after another, escaped where they are no Markup."""
    return Markup(between.join(p if isinstance(p, Markup) else escape(str(p)) for p in parts))


def number(value: Any, form: str = ".3f") -> str:
    """Return a number as text, a dash where there is none."""
    return ABSENT if _is_absent(value) else format(float(value), form)


def numeric(value: Any, shown: Any = None, *, sd: Any = None, form: str = ".3f") -> Markup:
    """Return a cell that sorts and copies by its full value, not by the text shown."""
    text = number(value, form) if shown is None else shown
    return tag("td", text, class_="number", data_value=_exact(value), data_sd=_exact(sd))


def column(title: Any, **attributes: Any) -> Markup:
    """Return a header cell that sorts its column by click, Enter or Space."""
    return tag("th", tag("button", title, type="button"), scope="col", **attributes)


def table(
    header: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    *,
    ident: str,
    caption: str,
    tools: str = "",
) -> Markup:
    """Return a table that scrolls by itself; cells that are no <td> become one.

    tools: "filter" and "copy", which the script brings to life.
    """
    first = rows[0] if rows else [""] * len(header)
    heads = [_head(title, cell) for title, cell in zip(header, first, strict=True)]
    body = (tag("tr", *map(_cell, row)) for row in rows)
    grid = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *body),
        id=ident,
    )
    box = tag("div", grid, class_="scroll", role="region", aria_label=caption, tabindex=0)
    return join([_tools(ident, tools.split()), box])


def _head(title: Any, cell: Any) -> Markup:
    if isinstance(title, Markup) and title.startswith("<th"):
        return title
    numbers = isinstance(cell, Markup) and cell.startswith('<td class="number"')
    return column(title, class_="number" if numbers else None)


def _cell(value: Any) -> Markup:
    whole = isinstance(value, Markup) and value.startswith(("<td", "<th"))
    return value if whole else tag("td", value)


def _tools(ident: str, tools: Sequence[str]) -> Markup:
    parts = []
    if "filter" in tools:
        field = tag("input", type="search", data_filter=ident, placeholder="words, all of them")
        parts.append(tag("label", "Filter ", field))
    if "copy" in tools:
        parts += [
            tag("button", f"Copy {name}", type="button", data_copy=name, data_table=ident)
            for name in ("CSV", "LaTeX", "Markdown")
        ]
    status = tag("output", class_="status", data_status=ident, role="status")
    return tag("div", *parts, status, class_="tools") if parts else Markup("")


def _exact(value: Any) -> str | None:
    """Return all digits of a number, None where there is none."""
    if _is_absent(value):
        return None
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))


def _is_absent(value: Any) -> bool:
    return value is None or not math.isfinite(float(value))

"""What must hold of every page, read without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "input", "br", "link", "img"}
OUTSIDE = {"src", "srcset", "data", "action", "poster", "background", "xlink:href"}


class Page(HTMLParser):
    """Reads a page; AssertionError where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open[-4:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def check(text: str) -> Page:
    """Return the page; AssertionError where it is not self-contained, unique and labelled."""
    page = Page(text)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids)), "an id stands twice"
    for name, attributes in page.elements:
        assert not OUTSIDE & set(attributes), (name, attributes)
        href = attributes.get("href")
        assert href is None or (href.startswith("#") and href[1:] in ids), href
        assert not any(key.startswith("on") for key in attributes), "a handler in the markup"
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|<iframe", text)
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    for table in page.all("table"):
        assert table["id"]
    for button in page.all("button"):
        assert button["type"] == "button"
        assert button.get("data-table") is None or button["data-table"] in ids
    for name in ("main", "header", "nav", "footer", "h1"):
        assert len(page.all(name)) == 1
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.all("svg"))
    assert "Content-Security-Policy" in text
    return page

"""Small charts as inline SVG: a plane with axes, marks with tooltips, colours by class.

    plane = Plane(x=(0, 10), y=(0, 1))
    drawing(plane, "accuracy against shift", plane.axes("shift (px)", "accuracy"),
            mark(plane.at(3, 0.5), series=0, title="max: 0.5"))

Colours are classes (s0 to s7, the Okabe-Ito palette in page.css), so that light, dark and print
have their own; shapes repeat them for those who see no colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from cnnjax.study.report.markup import Markup, join, tag

COLOURS, SHAPES = 8, 7
SIZE = 4.5
# Outlines about (0, 0) with a radius of one.
OUTLINES = (
    None,  # a circle
    "-.85,-.85 .85,-.85 .85,.85 -.85,.85",
    "0,-1.2 1.2,0 0,1.2 -1.2,0",
    "0,-1.1 1.1,.9 -1.1,.9",
    "0,1.1 1.1,-.9 -1.1,-.9",
    "-.4,-1 .4,-1 .4,-.4 1,-.4 1,.4 .4,.4 .4,1 -.4,1 -.4,.4 -1,.4 -1,-.4 -.4,-.4",
    "-1,-.5 -.5,-1 0,-.5 .5,-1 1,-.5 .5,0 1,.5 .5,1 0,.5 -.5,1 -1,.5 -.5,0",
)
Point = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """A rectangle of the page and the ranges of its axes."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 340
    height: int = 230
    left: int = 46
    bottom: int = 40
    top: int = 8
    right: int = 10

    def at(self, x: float, y: float) -> Point:
        """Return where a point lies on the page."""
        inner_x, inner_y = self.width - self.left - self.right, self.height - self.top - self.bottom
        share_x, share_y = _share(x, self.x), _share(y, self.y)
        return self.left + share_x * inner_x, self.top + (1 - share_y) * inner_y

    def axes(self, x: str, y: str) -> Markup:
        """Return grid lines, ticks and the axes' names."""
        parts = []
        end = self.width - self.right
        for value in ticks(self.y):
            _, at = self.at(self.x[0], value)
            parts.append(tag("line", x1=self.left, x2=end, y1=px(at), y2=px(at), class_="grid"))
            parts.append(
                tag("text", f"{value:g}", x=self.left - 6, y=px(at + 4), class_="tick end")
            )
        for value in ticks(self.x):
            at, _ = self.at(value, self.y[0])
            low = self.height - self.bottom
            parts.append(tag("line", x1=px(at), x2=px(at), y1=low, y2=low + 4, class_="axis"))
            parts.append(tag("text", f"{value:g}", x=px(at), y=low + 17, class_="tick middle"))
        across, down = px((self.left + end) / 2), px(self.height / 2 - 12)
        turned = f"rotate(-90 12 {down})"
        parts.append(tag("text", x, x=across, y=self.height - 5, class_="name middle"))
        parts.append(tag("text", y, x=12, y=down, transform=turned, class_="name middle"))
        return join(parts)


def drawing(plane: Plane, title: str, *parts: Markup) -> Markup:
    """Return an <svg> that scales with the page; `title` is what a screen reader says."""
    box = f"0 0 {plane.width} {plane.height}"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=title, class_="chart")


def mark(at: Point, *, series: int, title: str, size: float = SIZE, hollow: bool = False) -> Markup:
    """Return a point with a tooltip, in the colour and shape of its series."""
    kind = f"s{series % COLOURS}{' hollow' if hollow else ''}"
    outline = OUTLINES[series % SHAPES]
    where = f"translate({px(at[0])} {px(at[1])})"
    told = tag("title", title)
    if outline is None:
        return tag("g", told, tag("circle", r=size), class_=f"mark {kind}", transform=where)
    turns = [pair.split(",") for pair in outline.split()]
    points = " ".join(f"{px(float(a) * size)},{px(float(b) * size)}" for a, b in turns)
    shape = tag("path", d=f"M{points.replace(' ', 'L')}Z")
    return tag("g", told, shape, class_=f"mark {kind}", transform=where)


def line(points: Sequence[Point], *, series: int | None = None, kind: str = "curve") -> Markup:
    """Return a line through the points; one that is not finite breaks it."""
    own = "" if series is None else f" s{series % COLOURS} d{series // COLOURS % 3}"
    pieces: list[list[Point]] = [[]]
    for point in points:
        if all(map(math.isfinite, point)):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    drawn = (" ".join(f"{px(x)},{px(y)}" for x, y in piece) for piece in pieces if len(piece) > 1)
    return join(tag("polyline", points=text, class_=f"{kind}{own}") for text in drawn)


def swatch(series: int) -> Markup:
    """Return the key of a series for a legend."""
    parts = line([(0, 8), (24, 8)], series=series), mark((12, 8), series=series, title="")
    return tag("svg", *parts, viewBox="0 0 24 16", class_="swatch", aria_hidden="true")


def ticks(limits: tuple[float, float], most: int = 5) -> list[float]:
    """Return round values within the limits."""
    low, high = limits
    slack = 1e-9 * (high - low)
    values = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(f"{v:.10g}") + 0.0 for v in values if low - slack <= v <= high + slack]


def around(values: Sequence[float], *, share: float = 0.06, least: float = 1e-3) -> Point:
    """Return limits that hold all finite values with some room."""
    finite = [float(v) for v in values if math.isfinite(v)] or [0.0, 1.0]
    room = max(share * (max(finite) - min(finite)), least)
    return min(finite) - room, max(finite) + room


def px(value: float) -> str:
    """Return a length with a tenth of a pixel, the shortest way."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _share(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return (value - low) / (high - low) if high > low else 0.5

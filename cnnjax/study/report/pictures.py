"""The charts of a page: trade-off, accuracy against shift, accuracy by offset, learning curves.

    trade_off(evidence), distance(evidence), places(evidence), learning(evidence)

Series are the values of the first axis (colour and shape), panels those of the others together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from cnnjax.study import figures
from cnnjax.study.report import svg
from cnnjax.study.report.evidence import Arm, Evidence
from cnnjax.study.report.markup import Markup, join, number, tag
from cnnjax.study.statistics.contrast import words

# A chart with more of these could not be read; the table has them all.
MOST_SERIES, MOST_PANELS, MOST_ARMS = 14, 9, 60
SHADES = [to_hex(colormaps["cividis"](i / 15)) for i in range(16)]
CELL = 12
Curve = tuple[np.ndarray, np.ndarray]


def trade_off(evidence: Evidence) -> Markup:
    """Return accuracy against consistency, a point an arm, with the Pareto front."""
    points = _points(evidence)
    if not points:
        return Markup("")
    xs, ys = [p[1] for p in points], [p[2] for p in points]
    plane = svg.Plane(svg.around(xs), svg.around(ys), width=520, height=360, left=52)
    best = front(list(zip(xs, ys, strict=True)))
    stairs = [plane.at(*corner) for corner in _stairs([(xs[i], ys[i]) for i in best])]
    parts = [plane.axes("shift consistency", "accuracy"), svg.line(stairs, kind="front")]
    for index, (arm, x, y) in enumerate(points):
        if len(points) <= MOST_ARMS:  # more would hide each other
            parts += _spreads(plane, arm, x, y, _series(evidence)[arm.key[0]])
        parts.append(_point(plane, evidence, arm, (x, y), index in best))
    names = ", ".join(points[i][0].name for i in best[:12])
    rest = f" and {len(best) - 12} more" if len(best) > 12 else ""
    caption = (
        f"Mean and standard deviation over seeds; up and to the right is better. On the front (no "
        f"other arm is at least as good in both and better in one): {names}{rest}. The front is of "
        "means: the differences above say which of them can be told apart."
    )
    drawn = svg.drawing(plane, "accuracy against shift consistency", *parts)
    return _figure([drawn], evidence, caption, wide=True)


def _points(evidence: Evidence) -> list[tuple[Arm, float, float]]:
    if not {"accuracy", "consistency"} <= set(evidence.metrics):
        return []
    found = (
        (arm, arm.values("consistency").mean(), arm.values("accuracy").mean())
        for arm in evidence.arms
    )
    return [(arm, x, y) for arm, x, y in found if math.isfinite(x) and math.isfinite(y)]


def front(points: Sequence[svg.Point]) -> list[int]:
    """Return the places of the points that no other one dominates, from left to right."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    kept: list[int] = []
    for i in order:
        best = points[kept[-1]] if kept else (math.inf, -math.inf)
        if points[i][1] > best[1] or points[i] == best:
            kept.append(i)
    return kept[::-1]


def _stairs(points: Sequence[svg.Point]) -> list[svg.Point]:
    """Return the edge of what the front dominates: down to the next point's height, then right."""
    pairs = itertools.pairwise(points)
    return [*points[:1], *(corner for a, b in pairs for corner in ((a[0], b[1]), b))]


def _spreads(plane: svg.Plane, arm: Arm, x: float, y: float, series: int) -> list[Markup]:
    dx, dy = arm.values("consistency").std(), arm.values("accuracy").std()
    bars = []
    if math.isfinite(dx):
        bars.append([_inside(plane, x - dx, y), _inside(plane, x + dx, y)])
    if math.isfinite(dy):
        bars.append([_inside(plane, x, y - dy), _inside(plane, x, y + dy)])
    return [svg.line(bar, series=series, kind="bar") for bar in bars]


def _inside(plane: svg.Plane, x: float, y: float) -> svg.Point:
    return plane.at(min(max(x, plane.x[0]), plane.x[1]), min(max(y, plane.y[0]), plane.y[1]))


def _point(plane: svg.Plane, evidence: Evidence, arm: Arm, at: svg.Point, best: bool) -> Markup:
    text = f"{arm.name}: consistency {at[0]:.3f}, accuracy {at[1]:.3f}, n = {len(arm.done)}"
    series = _series(evidence)[arm.key[0]]
    size = svg.SIZE * (1.3 if best else 1)
    return svg.mark(plane.at(*at), series=series, title=text, size=size, hollow=not best)


def distance(evidence: Evidence) -> Markup:
    """Return accuracy against the distance of the test shift."""

    def curve(trial_id: str) -> Curve | None:
        places = evidence.results[trial_id].get("places")
        return figures.distance_curve(places) if places else None

    caption = "Mean and standard deviation over seeds; the distance is the larger of the two axes."
    return _curves(evidence, curve, "shift (px)", "accuracy", caption)


def learning(evidence: Evidence) -> Markup:
    """Return training loss and accuracy against the epoch."""
    lines: dict[str, list[dict[str, Any]]] = {}

    def curve(name: str) -> Callable[[str], Curve | None]:
        def of(trial_id: str) -> Curve | None:
            if trial_id not in lines:
                lines[trial_id] = evidence.homes[trial_id].trial(trial_id).metrics()
            points = ((line.get("epoch"), line.get(name)) for line in lines[trial_id])
            found = {x: y for x, y in points if isinstance(x, int) and isinstance(y, int | float)}
            values = np.array(list(found.values()), float)
            return (np.array(list(found)), values) if found else None

        return of

    caption = "Training {}, mean and standard deviation over seeds."
    parts = (
        _curves(evidence, curve(name), "epoch", name, caption.format(name), legend=name == "loss")
        for name in ("loss", "accuracy")
    )
    return join(parts)


def _curves(
    evidence: Evidence,
    curve: Callable[[str], Curve | None],
    x: str,
    y: str,
    caption: str,
    *,
    legend: bool = True,
) -> Markup:
    """Return a panel for each combination of the other axes, a line for each of the first's."""
    found: dict[str, list[tuple[Arm, np.ndarray, np.ndarray, np.ndarray]]] = {}
    series = _series(evidence)
    for arm in evidence.arms:
        if series[arm.key[0]] < MOST_SERIES and (mean := _mean(map(curve, arm.ids))):
            found.setdefault(_panel(evidence, arm), []).append((arm, *mean))
    if not found:
        return Markup("")
    shown = dict(itertools.islice(found.items(), MOST_PANELS))
    drawn = [arm for group in shown.values() for arm in group]
    limits_x = svg.around([v for _, xs, _, _ in drawn for v in xs], share=0.03, least=0.2)
    limits_y = svg.around([v for _, _, ys, _ in drawn for v in ys])
    panels = []
    for title, group in shown.items():
        plane = svg.Plane(limits_x, limits_y)
        lines = (_line(plane, series[a.key[0]], a.name, xs, m, s) for a, xs, m, s in group)
        chart = svg.drawing(plane, f"{y} against {x}, {title}", plane.axes(x, y), *lines)
        panels.append(join([tag("p", title, class_="panel"), chart]) if title else chart)
    return _figure(panels, evidence, caption + _left_out(evidence, len(found)), legend=legend)


def _line(
    plane: svg.Plane, series: int, name: str, xs: np.ndarray, mean: np.ndarray, sd: np.ndarray
) -> Markup:
    points = [plane.at(x, m) if math.isfinite(m) else (math.nan, math.nan)
              for x, m in zip(xs, mean, strict=True)]  # fmt: skip
    parts = [svg.line(points, series=series)]
    several = len(xs) > 25
    for x, m, s, at in zip(xs, mean, sd, points, strict=True):
        if not math.isfinite(m):
            continue
        if s > 0:
            bar = [_inside(plane, x, m - s), _inside(plane, x, m + s)]
            parts.append(svg.line(bar, series=series, kind="bar"))
        if not several:
            text = f"{name}, {x:g}: {m:.3f}" + (f" ± {s:.3f}" if s > 0 else "")
            parts.append(svg.mark(at, series=series, title=text, size=3.2))
    return join(parts)


def _mean(curves: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return places, mean and standard deviation over the curves that have the same places."""
    known = [c for c in curves if c is not None]
    if not known:
        return None
    first = known[0][0]
    values = np.array([y for x, y in known if np.array_equal(x, first)], float)
    values[~np.isfinite(values)] = np.nan
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return first, values.mean(axis=0), spread


def places(evidence: Evidence) -> Markup:
    """Return a map of the accuracy at every test offset for each arm."""
    maps = []
    for arm in evidence.arms:
        grids = [evidence.results[i].get("places") for i in arm.ids]
        known = [g for g in grids if g and len(g["accuracy"]) == len((grids[0] or g)["accuracy"])]
        if known:
            maps.append((arm, known))
    if not maps:
        return Markup("")
    drawn = (_map(evidence, arm, grids) for arm, grids in maps[:MOST_ARMS])
    cut = f" The first {MOST_ARMS} of {len(maps)} arms." if len(maps) > MOST_ARMS else ""
    caption = "Accuracy at every place of the test grid, mean over seeds; the centre is no shift."
    key = tag("span", *map(_shade, range(16)), class_="shades", aria_hidden="true")
    scale = tag("p", "0 ", key, " 1", class_="scale")
    return tag("figure", tag("div", *drawn, class_="maps"), scale, tag("figcaption", caption + cut))


def _shade(index: int) -> Markup:
    return tag("span", style=f"background:{SHADES[index]}")


def _map(evidence: Evidence, arm: Arm, grids: Sequence[Mapping[str, Any]]) -> Markup:
    offsets = np.asarray(grids[0]["offsets"])
    accuracy = np.mean([figures.finite(g["accuracy"]) for g in grids], axis=0)
    rows, columns = np.unique(offsets[:, 0]), np.unique(offsets[:, 1])
    told = len(offsets) <= 169  # finer maps are too many tooltips for a page
    cells = []
    for (row, col), value in zip(offsets, accuracy, strict=True):
        if not math.isfinite(value):
            continue
        at = np.searchsorted(columns, col) * CELL, np.searchsorted(rows, row) * CELL
        title = [tag("title", f"{row}, {col}: {value:.3f}")] if told else []
        shade = SHADES[min(15, max(0, int(value * 16)))]
        size = {"width": CELL, "height": CELL}
        cells.append(tag("rect", *title, x=at[0], y=at[1], fill=shade, **size))
    box = f"0 0 {len(columns) * CELL} {len(rows) * CELL}"
    text = (
        f"{arm.name}: accuracy {number(accuracy.min(), '.2f')} to {number(accuracy.max(), '.2f')}"
    )
    chart = tag("svg", *cells, viewBox=box, role="img", aria_label=text, class_="map")
    return tag("div", chart, tag("p", arm.name, class_="panel"), class_="place")


def _series(evidence: Evidence) -> dict[Any, int]:
    """Return the number of each value of the first axis: its colour and shape."""
    return {value: i for i, value in enumerate(dict.fromkeys(arm.key[0] for arm in evidence.arms))}


def _panel(evidence: Evidence, arm: Arm) -> str:
    return words(dict(zip(evidence.by[1:], arm.key[1:], strict=True)))


def _left_out(evidence: Evidence, panels: int) -> str:
    cuts = []
    if (series := len(_series(evidence))) > MOST_SERIES:
        cuts.append(f"{MOST_SERIES} of {series} lines")
    if panels > MOST_PANELS:
        cuts.append(f"{MOST_PANELS} of {panels} panels")
    return f" Shown: {' and '.join(cuts)}." if cuts else ""


def _figure(
    charts: Sequence[Markup],
    evidence: Evidence,
    caption: str,
    *,
    wide: bool = False,
    legend: bool = True,
) -> Markup:
    names = list(_series(evidence).items())[: None if wide else MOST_SERIES]
    keys = (tag("li", svg.swatch(i), f"{evidence.by[0]} {value}") for value, i in names)
    drawn = (tag("div", chart, class_="wide" if wide else None) for chart in charts)
    return tag(
        "figure",
        tag("ul", *keys, class_="legend") if legend else "",
        tag("div", *drawn, class_="panels"),
        tag("figcaption", caption),
    )

"""Figures of a study, as matplotlib figures: accuracy against shift, over the canvas, consistency.

    for name, figure in draw(runs, results, by=["pool", "stride"]).items():
        figure.savefig(f"{name}.png")

Colours are the Okabe-Ito palette, which colour-blind readers can tell apart; markers repeat them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnjax.study.results import words

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999933")
MARKERS = "osD^vPX*"
# What a page of a paper holds; the tables have the rest.
MOST_ROWS, MOST_PANELS = 24, 8
LONGEST = 24  # characters in a line of a legend

Results = Mapping[str, Mapping[str, Any]]


def draw(runs: pd.DataFrame, results: Results, *, by: Sequence[str]) -> dict[str, Figure]:
    """Return the study's figures by file name; `by` are the axes that tell arms apart.

    The first axis is drawn as lines, the second as panels (or along x).
    """
    done = runs[runs["status"] == "done"]
    done = done.assign(**{axis: done[axis].astype(object).map(_told) for axis in by})
    if done.empty:
        return {}
    line, panel = by[0], by[1] if len(by) > 1 else None
    done = _first_values(_first_values(done, line, MOST_ROWS), panel, MOST_PANELS)
    figures = {"accuracy_against_consistency": trade_off(done, by)}
    placed = done[[bool(_result(row, results).get("places")) for row in _records(done)]]
    if not placed.empty:
        figures["accuracy_by_distance"] = by_distance(placed, results, line, panel)
        figures["accuracy_over_canvas"] = over_canvas(placed, results, line, panel)
    if panel is not None:
        figures["consistency"] = against(done, "consistency", line, panel)
    return figures


def compared(table: pd.DataFrame) -> dict[str, Figure]:
    """Return a forest plot for each metric of `statistics.family`'s table, by file name."""
    return {
        f"differences_{metric}": forest(own, str(metric))
        for metric, own in table.groupby("metric", sort=False)
    }


def trade_off(runs: pd.DataFrame, by: Sequence[str]) -> Figure:
    """Accuracy against shift consistency, a point an arm, mean and standard deviation."""
    figure, (axis,) = _row(1, 5.0, 3.8)
    for style, (name, group) in zip(_styles(), _groups(runs, by[0]), strict=False):
        arms = group.groupby(list(by), sort=False, dropna=False)[["consistency", "accuracy"]]
        mean, std = arms.mean(), arms.std().fillna(0.0)
        axis.errorbar(
            *(mean["consistency"], mean["accuracy"], std["accuracy"], std["consistency"]),
            label=str(name),
            **{**style, "linestyle": "none"},
        )
    axis.set(xlabel="shift consistency", ylabel="accuracy")
    axis.legend(title=by[0], fontsize="small", frameon=False)
    return figure


def forest(table: pd.DataFrame, metric: str) -> Figure:
    """Paired differences with intervals, filled where Holm's test tells them from zero.

    Of many those with the smallest p, in the order of the table.
    """
    strongest = table["p_holm"].fillna(2.0).sort_values(kind="stable").index[:MOST_ROWS]
    shown = table.loc[strongest].sort_index()
    figure, (axis,) = _row(1, 7.0, 0.8 + 0.24 * len(shown))
    names = [f"{a} − {b}" for a, b in zip(shown["arm_a"], shown["arm_b"], strict=True)]
    for place, row in enumerate(_records(shown)):
        told = row["verdict"] in ("higher", "lower")
        reach = [row["low"], row["high"]]
        if np.all(np.isfinite(reach)):
            axis.plot(reach, [place] * 2, color="black", linewidth=1.2)
        face = COLOURS[3] if told else "white"
        colour = COLOURS[3] if told else COLOURS[0]
        axis.plot(
            row["difference"], place, "s" if told else "o", markersize=5, mfc=face, mec=colour
        )
    axis.axvline(0.0, color="gray", linewidth=0.8, linestyle=":")
    axis.set(yticks=range(len(shown)), xlabel=f"difference in {metric}, 95 % interval")
    axis.set_yticklabels(names, fontsize="x-small")
    axis.invert_yaxis()
    return figure


def by_distance(runs: pd.DataFrame, results: Results, line: str, panel: str | None) -> Figure:
    """Accuracy against the distance of the shift, a line a method, a panel a stride."""
    panels = _groups(runs, panel)
    figure, axes = _row(len(panels), 3.6, 3.4)
    for axis, (title, group) in zip(axes, panels, strict=True):
        for style, (name, arm) in zip(_styles(), _groups(group, line), strict=False):
            curves = [distance_curve(_places(row, results)) for row in _records(arm)]
            # By distance, for an arm's runs may have several grids, as with two data sets.
            at = pd.DataFrame([dict(zip(*curve, strict=True)) for curve in curves])
            at = at.sort_index(axis=1)
            axis.errorbar(at.columns, at.mean(), at.std().fillna(0.0), label=str(name), **style)
        axis.set(title=_title(panel, title), xlabel="shift (px, larger axis)", ylim=(0, 1.02))
    axes[0].set_ylabel("accuracy")
    axes[-1].legend(title=line, fontsize="small", frameon=False)
    return figure


def over_canvas(runs: pd.DataFrame, results: Results, line: str, panel: str | None) -> Figure:
    """Accuracy at every place of the test grid, mean over seeds: a map for each arm.

    Of an arm whose runs have several grids, the first.
    """
    rows, columns = _groups(runs, line), _groups(runs, panel)
    figure = Figure(
        figsize=(1.2 + 1.45 * len(columns), 0.6 + 1.45 * len(rows)), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    image: Any = None
    for (i, (name, _)), (j, (title, group)) in itertools.product(
        enumerate(rows), enumerate(columns)
    ):
        arm = group[group[line] == name]
        axes[i, j].set(xticks=[], yticks=[])
        if i == 0:
            axes[i, j].set_title(_title(panel, title), fontsize="small")
        if j == 0:
            axes[i, j].set_ylabel(str(name), fontsize="small")
        if len(arm):
            places = [_places(row, results) for row in _records(arm)]
            grid = places[0]["offsets"]
            maps = [finite(p["accuracy"]) for p in places if p["offsets"] == grid]
            side = round(np.sqrt(maps[0].size))
            image = axes[i, j].imshow(
                np.mean(maps, 0).reshape(side, side), vmin=0, vmax=1, cmap="cividis"
            )
    figure.colorbar(image, ax=axes, label="accuracy", shrink=0.6)
    return figure


def against(runs: pd.DataFrame, metric: str, line: str, x: str) -> Figure:
    """A metric against one axis, mean and standard deviation over seeds, a line a method."""
    figure, (axis,) = _row(1, 5.0, 3.6)
    places = {value: index for index, (value, _) in enumerate(_groups(runs, x))}
    for style, (name, arm) in zip(_styles(), _groups(runs, line), strict=False):
        groups = [(places[value], group[metric]) for value, group in _groups(arm, x)]
        means = [values.mean() for _, values in groups]
        stds = [values.std() if len(values) > 1 else 0.0 for _, values in groups]
        axis.errorbar([place for place, _ in groups], means, stds, label=str(name), **style)
    axis.set(
        xlabel=x, ylabel=metric, xticks=range(len(places)), xticklabels=[str(v) for v in places]
    )
    axis.legend(title=line, fontsize="small", frameon=False)
    return figure


def distance_curve(places: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return (distances, mean accuracy at each), distance being the larger of the two axes."""
    distance = np.abs(np.asarray(places["offsets"])).max(axis=1)
    accuracy = finite(places["accuracy"])
    values = np.unique(distance)
    return values, np.array([accuracy[distance == value].mean() for value in values])


def finite(values: Sequence[float | None]) -> np.ndarray:
    """Return figures as an array, NaN where there is no finite number."""
    array = np.asarray(values, float)
    return np.where(np.isfinite(array), array, np.nan)


def _told(value: Any) -> Any:
    """Return the value of an axis as figures name it: None as flags do, long text in lines."""
    text = words(value)
    return value if isinstance(value, int | float) and value == value else fill(text, LONGEST)


def _row(panels: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width * panels, height), layout="constrained")
    return figure, figure.subplots(1, panels, sharey=True, squeeze=False)[0]


def _groups(runs: pd.DataFrame, column: str | None) -> list[tuple[Any, pd.DataFrame]]:
    if column is None:
        return [("", runs)]
    return list(runs.groupby(column, sort=False, dropna=False))


def _records(runs: pd.DataFrame) -> list[dict[Any, Any]]:
    return runs.to_dict("records")


def _first_values(runs: pd.DataFrame, column: str | None, most: int) -> pd.DataFrame:
    return runs if column is None else runs[runs[column].isin(runs[column].unique()[:most])]


def _result(row: Mapping[str, Any], results: Results) -> Mapping[str, Any]:
    return results[row["same_as"] or row["id"]]


def _places(row: Mapping[str, Any], results: Results) -> Mapping[str, Any]:
    return _result(row, results)["places"]


def _styles() -> itertools.cycle[dict[str, Any]]:
    pairs = zip(itertools.cycle(COLOURS), MARKERS, strict=False)
    return itertools.cycle(
        {"color": colour, "marker": marker, "markersize": 4, "capsize": 2, "linewidth": 1.2}
        for colour, marker in pairs
    )


def _title(axis: str | None, value: Any) -> str:
    return f"{axis} {value}" if axis else ""

"""What was found: the table of arms, the paired differences, and what the seeds could find.

arms(evidence), differences(evidence), images(evidence)      # Markup, "" where there is nothing
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from cnnjax.study import statistics
from cnnjax.study.predictions import Predictions
from cnnjax.study.report import svg
from cnnjax.study.report.evidence import Arm, Evidence
from cnnjax.study.report.markup import ABSENT, Markup, column, join, number, numeric, table, tag
from cnnjax.study.results import HEADLINES
from cnnjax.study.statistics.paired import LEVEL

# More arms than this have no ranks: every pair would be tested.
MOST_RANKED = 40
MOST_ROWS = 60
MOST_READ = 200
WANTED = 0.01
STRIP = svg.Plane(x=(0, 1), y=(0, 1), width=240, height=26, left=8, right=8, top=0, bottom=0)


def arms(evidence: Evidence) -> Markup:
    """Return the table of arms: mean and standard deviation over seeds, and ranks."""
    if not evidence.arms:
        return tag("p", "No trial has finished yet.")
    ranked = _ranks(evidence)
    several = len(evidence.sources) > 1
    header = [
        *(["study"] if several else []),
        *evidence.by,
        *(_spread_column(HEADLINES.get(m, m)) for m in evidence.main_metrics),
        "n",
        *([f"rank in {evidence.focus}"] if ranked else []),
    ]
    rows = [_row(evidence, arm, ranked, several) for arm in evidence.arms]
    text = "mean ± standard deviation over n seeds"
    return join(
        [
            tag("p", measured(evidence)),
            table(header, rows, ident="arms", caption=text, tools="filter copy"),
            *(tag("p", note, class_="note") for note in shared(evidence.runs, evidence.by)),
            tag("p", RANKED, class_="note") if ranked else "",
            _everything(evidence),
        ]
    )


RANKED = (
    "Ranks 1 to 3, say, are those that the paired tests of all pairs, after Holm, do not rule out; "
    "arms whose ranks overlap are not distinguishable."
)


def _row(evidence: Evidence, arm: Arm, ranked: Mapping[str, str], several: bool) -> list[Any]:
    failed = int((arm.runs["status"] == "failed").sum())
    study = [_together(arm.runs["study"])] if several else []
    cells: list[Any] = [*study, *arm.key]
    for metric in evidence.main_metrics:
        values = arm.values(metric)
        cells.append(numeric(values.mean(), spread(values), sd=values.std()))
    n = len(arm.done)
    note = tag("span", f"{failed} failed", class_="failed") if failed else ""
    cells.append(numeric(n, join([n, " " if failed else "", note])))
    if ranked:
        cells.append(ranked.get(arm.name, ABSENT))
    return cells


def _together(labels: pd.Series) -> str:
    """Return the studies that runs come from, each once; a trial of two reads `a + b`."""
    return " + ".join(dict.fromkeys(part for label in labels for part in label.split(" + ")))


def spread(values: pd.Series) -> str:
    """Return mean ± standard deviation; a single run has no spread to show."""
    if values.empty:
        return ABSENT
    return number(values.mean()) + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def _spread_column(title: str) -> Markup:
    return column(title, data_spread=True, class_="number")


def versus(a: str, b: str) -> str:
    """Return two arms as a difference, what they share said once: `pool aps − max, stride 3`."""
    pairs = list(zip(a.split(", "), b.split(", "), strict=False))
    unlike = [place for place, (x, y) in enumerate(pairs) if x != y]
    if len(unlike) != 1 or a.count(", ") != b.count(", "):
        return f"{a} − {b}"
    x, y = pairs[unlike[0]]
    same = [x for place, (x, _) in enumerate(pairs) if place != unlike[0]]
    return ", ".join([f"{x} − {y.partition(' ')[2]}", *same])


def _ranks(evidence: Evidence) -> dict[str, str]:
    """Return every arm's ranks in what the study is about, those that are not ruled out."""
    if not 1 < len(evidence.arms) <= MOST_RANKED or evidence.focus is None:
        return {}
    found = statistics.ranking(evidence.runs, evidence.by, evidence.focus)
    rows = found.to_dict("records")
    return {r["arm"]: f"{r['rank_low']} to {r['rank_high']}" for r in rows if r["n"]}


def measured(evidence: Evidence) -> str:
    """Return on how many images and at which places the figures were measured."""
    done = [r for r in evidence.results.values() if r["status"] == "done" and r.get("places")]
    if not done:
        return "No trial finished with figures."
    texts = dict.fromkeys(map(_measured, done))
    return " ".join(texts) if len(texts) <= 2 else f"{next(iter(texts))} Other trials: otherwise."


def _measured(result: Mapping[str, Any]) -> str:
    metrics, places = result["metrics"], result["places"]
    reach = max(max(map(abs, offset)) for offset in places["offsets"])
    return (
        f"Accuracy over all {metrics.get('test_images', 'the')} test images; accuracy away and "
        f"consistency over {metrics.get('shifted_images', 'some')} of them at "
        f"{len(places['offsets'])} places up to {reach} pixels from the centre "
        f"({places.get('boundary', 'unknown')} boundary). Consistency is the closed form over all "
        "pairs of different places."
    )


def shared(runs: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Return a line for every arm that is the same function as another one."""
    lines = []
    same = runs[runs["same_as"].isin(runs["id"])].groupby(list(by), sort=False, dropna=False)
    for key, group in same:
        twin = runs[runs["id"] == group["same_as"].iloc[0]]
        other = ", ".join(f"{a} {twin[a].iloc[0]}" for a in by)
        names = ", ".join(f"{a} {v}" for a, v in zip(by, key, strict=True))
        lines.append(f"{names} is the same function as {other}: run once, shown twice.")
    return lines


def notes(runs: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Return what a reader must know of single arms: shared runs and failures."""
    lines = shared(runs, by)
    for _, row in runs[runs["status"] == "failed"].iterrows():
        names = ", ".join(f"{a} {row[a]}" for a in [*by, "seed"])
        lines.append(f"Failed: {names}: {row['reason']}")
    return lines


def _everything(evidence: Evidence) -> Markup:
    """Return every other figure, folded away."""
    others = [m for m in evidence.metrics if m not in evidence.main_metrics]
    if not others:
        return Markup("")
    header = [*evidence.by, *map(_spread_column, others)]
    rows = []
    for arm in evidence.arms:
        found = [arm.values(m) for m in others]
        rows.append([*arm.key, *(numeric(v.mean(), form=".4g", sd=v.std()) for v in found)])
    grid = table(header, rows, ident="figures-all", caption="means over seeds", tools="filter copy")
    return tag("details", tag("summary", f"{len(others)} more figures of every arm"), grid)


def differences(evidence: Evidence) -> Markup:
    """Return the forest plot: a row a comparison, its interval on a common scale."""
    found = evidence.comparisons
    if found.empty:
        return tag("p", "There is no pair of arms to compare.")
    tests = int(found["p"].notna().sum())
    parts = [tag("p", _family_text(evidence, found, tests))]
    for metric in sorted(evidence.main_metrics, key=lambda m: m != evidence.focus):
        own = found[found["metric"] == metric]
        block = forest(own, metric)
        title = f"{HEADLINES.get(metric, metric)}: {_count(own)}"
        parts.append(tag("details", tag("summary", title), block, open=metric == evidence.focus))
    return join([*parts, power(evidence)])


def _count(own: pd.DataFrame) -> str:
    told = int(own["verdict"].isin(["higher", "lower"]).sum())
    return f"{told} of {len(own)} differences are distinguishable from zero"


def _family_text(evidence: Evidence, found: pd.DataFrame, tests: int) -> str:
    pairs = "arms that differ in one axis"
    if evidence.reference is not None:
        pairs = f"every arm against the one with {evidence.by[0]} {evidence.arms[0].key[0]}"
    return (
        f"Paired differences between {pairs}, with {100 * LEVEL:.0f} % intervals (Student's t over "
        f"seeds, not corrected); p after Holm over all {tests} tests of this page, and a verdict "
        "that follows it. Filled squares are distinguishable from zero, open circles are not."
    )


def forest(own: pd.DataFrame, metric: str) -> Markup:
    """Return the comparisons of one metric as a table with a drawn interval in each row."""
    shown = own
    if len(own) > MOST_ROWS:
        order = own["p_holm"].fillna(2.0).sort_values(kind="stable").index
        shown = own.loc[order[:MOST_ROWS]]
    finite = [v for c in ("low", "high", "difference") for v in shown[c] if math.isfinite(v)]
    limits = svg.around([0.0, *finite])
    header = [
        "comparison (first minus second)",
        tag("th", _scale(limits), scope="col", data_skip=True, aria_label="interval, drawn"),
        *("difference", "low", "high", "p (Holm)", "n", "verdict"),
    ]
    rows = [_comparison(row, limits) for row in shown.to_dict("records")]
    grid = table(
        header,
        rows,
        ident=f"forest-{metric}",
        caption=f"paired differences in {HEADLINES.get(metric, metric)}",
        tools="filter copy",
    )
    if len(own) == len(shown):
        return grid
    text = f"The {len(shown)} smallest p of {len(own)}; all are in figures/comparisons.csv."
    return join([grid, tag("p", text, class_="note")])


def _comparison(row: Mapping[Any, Any], limits: svg.Point) -> list[Any]:
    told = row["verdict"] in ("higher", "lower")
    verdict = tag("span", row["verdict"], class_="told" if told else "open")
    note = tag("span", f" {row['note']}", class_="note") if row["note"] else ""
    return [
        tag("th", versus(row["arm_a"], row["arm_b"]), scope="row"),
        tag("td", strip(row, limits, told)),
        numeric(row["difference"], form="+.4f"),
        numeric(row["low"], form="+.4f"),
        numeric(row["high"], form="+.4f"),
        numeric(row["p_holm"], form=".3g"),
        numeric(row["n"], row["n"]),
        join([verdict, note]),
    ]


def strip(row: Mapping[Any, Any], limits: svg.Point, told: bool) -> Markup:
    """Return one interval as a small drawing."""
    plane = replace(STRIP, x=limits)
    zero = plane.at(0.0, 0.0), plane.at(0.0, 1.0)
    parts = [svg.line(zero, kind="zero")]
    if math.isfinite(row["low"]) and math.isfinite(row["high"]):
        parts.append(
            svg.line([plane.at(row["low"], 0.5), plane.at(row["high"], 0.5)], kind="reach")
        )
    text = (
        f"{row['arm_a']} minus {row['arm_b']}: {number(row['difference'], '+.4f')} "
        f"[{number(row['low'], '+.4f')}, {number(row['high'], '+.4f')}]"
    )
    if math.isfinite(row["difference"]):
        at = plane.at(row["difference"], 0.5)
        parts.append(svg.mark(at, series=1 if told else 0, title=text, hollow=not told))
    return svg.drawing(plane, text, *parts)


def _scale(limits: svg.Point) -> Markup:
    plane = replace(STRIP, x=limits, height=18)
    labels = (
        tag(
            "text", f"{v:+g}" if v else "0", x=svg.px(plane.at(v, 0)[0]), y=13, class_="tick middle"
        )
        for v in svg.ticks(limits, most=4)
    )
    return svg.drawing(plane, "scale of the differences", *labels)


def power(evidence: Evidence) -> Markup:
    """Return what the seeds could find, and how many a difference of WANTED would take."""
    found = evidence.comparisons
    own = found[found["metric"] == evidence.focus].head(MOST_ROWS)
    tests = max(1, int(found["p"].notna().sum()))
    table_ = statistics.power(own, WANTED, comparisons=tests).dropna(subset=["seeds_needed"])
    if table_.empty:
        return tag("p", "Too few seeds to say what more of them would find.", class_="note")
    middle = table_[["smallest", "seeds_needed", "seeds_needed_safe"]].median()
    name = HEADLINES.get(str(evidence.focus), evidence.focus)
    text = (
        f"What these seeds can find: a difference in {name} of {middle['smallest']:.3f} with power "
        f"80 % (the middle one of {len(table_)} comparisons, after Holm). A difference of {WANTED} "
        f"would take {_seeds(middle['seeds_needed'])} seeds, or "
        f"{_seeds(middle['seeds_needed_safe'])} if the spread is as large as it may well be."
    )
    return tag("p", text, class_="note")


def _seeds(count: float) -> str:
    return f"{count:.0f}" if math.isfinite(count) else "more than a million"


def images(evidence: Evidence) -> Markup:
    """Return what the kept predictions add: images as a second level, McNemar's test by seed."""
    if not 1 < len(evidence.arms) <= MOST_RANKED or not 0 < len(evidence.results) <= MOST_READ:
        return Markup("")
    known: dict[str, Predictions | None] = {}

    def read(trial_id: str) -> Predictions | None:
        if trial_id not in known:
            known[trial_id] = Predictions.read(evidence.homes[trial_id].trial(trial_id))
        return known[trial_id]

    try:
        levels = statistics.image_family(evidence.runs, evidence.by, read)
        pairs = statistics.mcnemar(evidence.runs, evidence.by, read)
    except (ValueError, OSError) as error:
        return tag("p", f"No statistics over images: {error}", class_="note")
    levels = levels[levels["n"] > 0]
    if levels.empty and pairs.empty:
        return Markup("")
    return join([tag("p", IMAGES), _levels(levels), _mcnemar(pairs)])


IMAGES = (
    "The differences above take the test images as given and ask about other seeds. Here images "
    "like these are a sample too, so the intervals are wider. McNemar's test asks about two "
    "networks as they were trained: it conditions on them and says nothing of other seeds."
)


def _levels(found: pd.DataFrame) -> Markup:
    header = ["figure", "comparison", "difference", "low", "high", "p (Holm)", "share of images"]
    rows = [
        [
            row["metric"],
            versus(row["arm_a"], row["arm_b"]),
            *(numeric(row[c], form="+.4f") for c in ("difference", "low", "high")),
            numeric(row["p_holm"], form=".3g"),
            numeric(row["image_share"], form=".2f"),
        ]
        for row in found.to_dict("records")[: 3 * MOST_ROWS]
    ]
    text = "seeds and test images both drawn; the share of squared error that images add"
    grid = table(header, rows, ident="levels", caption=text, tools="filter copy")
    return tag("details", tag("summary", "Seeds and images as samples"), grid)


def _mcnemar(found: pd.DataFrame) -> Markup:
    header = ["comparison", "seed", "first alone right", "second alone right", "p", "p (Holm)"]
    rows = [
        [
            versus(row["arm_a"], row["arm_b"]),
            numeric(row["seed"], row["seed"]),
            numeric(row["only_a"], row["only_a"]),
            numeric(row["only_b"], row["only_b"]),
            numeric(row["p"], form=".3g"),
            numeric(row["p_holm"], form=".3g"),
        ]
        for row in found.to_dict("records")[: 3 * MOST_ROWS]
    ]
    text = "McNemar's exact test, conditional on the two trained networks"
    grid = table(header, rows, ident="mcnemar", caption=text, tools="filter copy")
    return tag("details", tag("summary", "McNemar's test, network by network"), grid)

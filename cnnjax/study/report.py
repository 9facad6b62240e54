"""The report: one self-contained HTML page from a study directory.

    path = write(store, study, runs, results)

No script, no network: figures are inside the page, which opens from disk.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cnnjax.config import FIELDS, Config, identity
from cnnjax.study import figures, statistics
from cnnjax.study.environment import command
from cnnjax.study.grid import Study
from cnnjax.study.results import arms, label
from cnnjax.study.store import Store, write_bytes
from cnnjax.study.table import cells

CAPTIONS = {
    "accuracy_by_distance": "Accuracy against the distance of the test shift; mean and standard "
    "deviation over seeds.",
    "accuracy_over_canvas": "Accuracy at every place of the test grid; mean over seeds.",
    "consistency": "Shift consistency: how often two places of the same image get the same class; "
    "mean and standard deviation over seeds.",
}
FACTS = ("commit", "device", "cpu", "cores", "threads", "python", "jax", "jaxlib", "flax", "optax")


def write(store: Store, study: Study, runs: pd.DataFrame, results: Mapping[str, Any]) -> Path:
    """Write figures/*.png and report.html; return the report's path."""
    by = arms(runs, list(study.axes))
    drawn = figures.draw(runs, results, by=by)
    for name, figure in drawn.items():
        write_bytes(store.root / "figures" / f"{name}.png", png(figure))
    path = store.root / "report.html"
    write_bytes(path, page(store, study, runs, results, by, drawn).encode())
    return path


def answer(study: Study, runs: pd.DataFrame) -> str:
    """Return the study's answer: its contrast in one sentence, with the interval."""
    by = arms(runs, list(study.axes))
    contrast = study.contrast or statistics.default_contrast(runs, by)
    difference = statistics.compare(runs, contrast) if contrast else None
    return statistics.sentence(difference)


def page(
    store: Store,
    study: Study,
    runs: pd.DataFrame,
    results: Mapping[str, Any],
    by: Sequence[str],
    drawn: Mapping[str, Figure],
) -> str:
    """Return the page as text."""
    template = Template(files("cnnjax.study").joinpath("report.html").read_text())
    header, rows = cells(runs, by)
    return template.substitute(
        title=escape(study.name.replace("_", " ")),
        question=escape(study.question),
        answer=escape(answer(study, runs)),
        measured=escape(_measured(results)),
        table=_table(header, rows, numbers=len(header) - len(by)),
        notes="".join(f"<p>{escape(note)}</p>" for note in notes(runs, by)),
        certificates=_table([*by, "what it guarantees"], _certificates(runs, results, by)),
        figures="".join(_figure(name, figure) for name, figure in drawn.items()),
        provenance=_table(["", ""], list(_provenance(store, runs).items())),
        command=escape(f"{command()}"),
        row_command=escape(train_command(study.trials()[0].config)),
    )


def notes(runs: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Return what a reader must know of single arms: shared runs and failures."""
    lines = []
    shared = runs[runs["same_as"].isin(runs["id"])].groupby(list(by), sort=False, dropna=False)
    for key, group in shared:
        twin = runs[runs["id"] == group["same_as"].iloc[0]]
        other = ", ".join(f"{a} {twin[a].iloc[0]}" for a in by)
        names = ", ".join(f"{a} {v}" for a, v in zip(by, key, strict=True))
        lines.append(f"{names} is the same function as {other}: run once, shown twice.")
    for _, row in runs[runs["status"] == "failed"].iterrows():
        names = ", ".join(f"{a} {row[a]}" for a in [*by, "seed"])
        lines.append(f"Failed: {names}: {row['reason']}")
    return lines


def train_command(config: Config) -> str:
    """Return the command that trains this configuration."""
    flags = (f"--{k}={_flag(getattr(config, k))}" for k in identity(config) if k in FIELDS)
    return " ".join(["cnnjax train", *flags])


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _flag(value: Any) -> str:
    return "none" if value is None else str(label(value))


def _measured(results: Mapping[str, Any]) -> str:
    done = [r for r in results.values() if r["status"] == "done"]
    if not done:
        return "No trial finished."
    metrics, places = done[0]["metrics"], done[0]["places"]
    reach = max(max(map(abs, offset)) for offset in places["offsets"])
    return (
        f"Accuracy over all {metrics['test_images']} test images; accuracy away and consistency "
        f"over {metrics['shifted_images']} of them at {len(places['offsets'])} places up to "
        f"{reach} pixels from the centre ({places['boundary']} boundary). Consistency is the "
        "closed form over all pairs of different places."
    )


def _certificates(
    runs: pd.DataFrame, results: Mapping[str, Any], by: Sequence[str]
) -> list[list[str]]:
    """Return a row an arm: its names, and the certificate of its first finished run."""
    rows = []
    done = runs[runs["status"] == "done"]
    for key, group in done.groupby(list(by), sort=False, dropna=False):
        first = group.iloc[0]
        certificate = results[first["same_as"] or first["id"]].get("certificate") or {}
        rows.append([*map(str, key), certificate.get("paragraph", "not asked for")])
    return rows


def _provenance(store: Store, runs: pd.DataFrame) -> dict[str, str]:
    trained = statistics.distinct(runs)
    first = trained.iloc[0]
    env = store.trial(first["same_as"] or first["id"]).env()
    facts = {fact: str(env.get(fact, "unknown")) for fact in FACTS}
    facts["data"] = f"{runs['dataset'].iloc[0]}, sha256 {runs['data_sha256'].iloc[0][:12]}"
    facts["training"] = f"{trained['seconds'].sum():.0f} s in all over {len(trained)} trials"
    return facts


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> str:
    kinds = [""] * (len(header) - numbers) + [' class="number"'] * numbers
    head = "".join(f"<th{k}>{escape(h)}</th>" for k, h in zip(kinds, header, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kinds, r, strict=True))
        + "</tr>"
        for r in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figure(name: str, figure: Figure) -> str:
    source = base64.b64encode(png(figure)).decode()
    caption = escape(CAPTIONS[name])
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )

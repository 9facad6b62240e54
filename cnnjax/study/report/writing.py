"""What a report leaves on disk: the page; for papers figures as PNG and PDF, and comparisons.csv.

    path = write(store, study, runs, results)
    path = write_page(evidence, Path("both.html"))

An unchanged study gives unchanged bytes: files carry no date.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cnnjax.study import figures
from cnnjax.study.files import read_object, write_bytes
from cnnjax.study.grid import Study
from cnnjax.study.report.certificates import read_certificates
from cnnjax.study.report.evidence import Evidence, Source, gather
from cnnjax.study.report.page import render
from cnnjax.study.store import Store

# Nothing that changes between two runs of one version of matplotlib.
UNDATED: Mapping[str, dict[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}


def write(store: Store, study: Study, runs: pd.DataFrame, results: Mapping[str, Any]) -> Path:
    """Write figures/ and report.html of one study; return the page's path."""
    about = read_object(store.root / "study.json") or {}
    source = Source(
        study.name, store, study, study.trials(), runs, results, about.get("command", "")
    )
    return write_all(gather([source]), store.root / "report.html", store.root / "figures")


def write_all(evidence: Evidence, path: Path, folder: Path) -> Path:
    """Write the page at `path`, the figures and the table of all comparisons into `folder`."""
    with ThreadPoolExecutor(1) as aside:
        proofs = aside.submit(read_certificates, evidence)  # for the page; mostly compilation
        try:
            draw(evidence, folder)
            comparisons = evidence.comparisons.to_csv(index=False).encode()
            write_bytes(folder / "comparisons.csv", comparisons)
            proofs.result()
        except BaseException:  # Ctrl-C, a full disk: nobody waits for the proofs that are left
            evidence.hurry.set()
            raise
    return write_page(evidence, path)


def write_page(evidence: Evidence, path: Path, **how: Any) -> Path:
    """Write the page alone."""
    write_bytes(path, render(evidence, **how).encode())
    return path


def draw(evidence: Evidence, folder: Path) -> None:
    """Write each figure of a paper as PNG and PDF."""
    drawn = figures.draw(evidence.runs, evidence.results, by=evidence.by)
    drawn |= figures.compared(evidence.comparisons)
    for name, figure in drawn.items():
        for kind in UNDATED:
            write_bytes(folder / f"{name}.{kind}", picture(figure, kind))


def picture(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file of this kind, the same bytes whenever it is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **UNDATED[kind])
    return buffer.getvalue()

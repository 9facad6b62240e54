"""usage: cnnjax bench NAME [--only TEXT] [--without NAMES] [--seconds S] [--json FILE]

Measure a workload of this package beside what one would write instead, interleaved in one process.

  cnnjax bench pooling                         every cell, then geometric means of the ratios
  cnnjax bench conv --only="5x5" --json c.json
  cnnjax bench epoch --without="flax scan"     what takes minutes left out

A ratio is theirs / ours, the median over rounds: above 1, ours is faster. PyTorch is measured where
it is installed; its threads are those of XLA (the variable NPROC, or every core). As in all of
cnnjax's commands the process keeps the memory that is freed, for all candidates alike;
CNNJAX_MEMORY=system measures without.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cnnjax import environment, spec
from cnnjax.bench import WORKLOADS, torch
from cnnjax.bench.measure import measure, summarise
from cnnjax.cli.flags import Flags


def main(argv: list[str]) -> int:
    """Run `cnnjax bench`; return the exit status."""
    workloads = "\n".join(f"  {name:10}{text}" for name, (_, text) in WORKLOADS.items())
    flags = Flags("bench", f"{__doc__}\nworkloads:\n{workloads}")
    flags.string("json", None, "file that receives rows, summary, machine and versions")
    flags.string("only", None, "measure the cells whose labels contain this text")
    flags.string("without", "", "candidates that are left out, commas between")
    flags.string("seconds", "1", "measured time of one cell, at least 5 rounds")
    words = flags.parse(argv)
    if words is None:
        return 0
    if len(words) != 1:
        raise ValueError(f"expected one workload of {', '.join(WORKLOADS)}, got {words}")
    module, _ = spec.find(WORKLOADS, words[0], "workload")
    seconds = _seconds(flags.seconds)
    if flags.json and not Path(flags.json).resolve().parent.is_dir():
        raise FileNotFoundError(f"--json: no directory for {flags.json!r}")
    without = [name.strip() for name in flags.without.split(",") if name.strip()]
    report = run(words[0], importlib.import_module(module), seconds, flags.only or "", without)
    if flags.json:
        Path(flags.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0


def run(
    name: str, workload: Any, seconds: float, only: str, without: Collection[str] = ()
) -> dict[str, Any]:
    """Measure the cells, printing each as it is done; return what --json writes."""
    console = Console()
    rows: list[dict[str, Any]] = []
    for cell in workload.cells():
        if only in ", ".join(cell.labels.values()):
            measured = measure(cell, seconds=seconds, without=without)
            console.print(
                line(cell.labels, measured), highlight=False, markup=False, soft_wrap=True
            )
            console.file.flush()  # what is measured stays seen when the command is stopped
            rows += measured
    if not rows:
        raise ValueError(f"--only: no cell of {name} has {only!r} in its labels")
    summary = summarise(rows, workload.GROUP)
    machine = {
        **environment.describe(threads=torch.threads()),
        "torch": torch.version(),
        "memory": os.environ.get("CNNJAX_MEMORY", "kept"),
    }
    console.print(table(summary))
    console.print(
        "; ".join(f"{key} {value}" for key, value in machine.items()), highlight=False, markup=False
    )
    command = environment.command()
    return {
        "workload": name,
        "command": command,
        "machine": machine,
        "summary": summary,
        "rows": rows,
    }


def line(labels: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one cell as text: median (min to max) in ms, ratio and memory of each candidate."""
    parts = [", ".join(labels.values())]
    for row in rows:
        if "absent" in row:
            parts.append(f"{row['candidate']}: {row['absent']}")
            continue
        spread = f"{row['median_ms']:.2f} ms ({row['min_ms']:.2f} to {row['max_ms']:.2f})"
        speed = f" {row['images_per_second']:,.0f} images/s" if "images_per_second" in row else ""
        needs = row.get("temporary_bytes")
        memory = "" if needs is None else f" {needs / 1e6:.1f} MB"
        parts.append(f"{row['candidate']} {spread} x{row['ratio']:.2f}{speed}{memory}")
    return "\n  ".join(parts)


def table(summary: Iterable[Mapping[str, Any]]) -> Table:
    """Return the summary as a table."""
    rows = [dict(row) for row in summary]
    result = Table(*(key.replace("_", " ") for key in rows[0]), title="theirs / ours")
    for row in rows:
        result.add_row(*(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    return result


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"--seconds: expected a number > 0, got {text!r}") from None
    if not 0 < seconds < float("inf"):
        raise ValueError(f"--seconds: expected a number > 0, got {text!r}")
    return seconds

"""Timing of candidates for the same work, interleaved in one process: cells -> rows -> summary.

    cell = Cell({"method": "max"}, lambda: {"ours": compiled(ours, x), "flax": compiled(stock, x)})
    rows = measure(cell, seconds=1.0)      # median, min and max in ms; ratio to the first candidate

Every round runs each candidate once, after a short rest, beginning with another one, so that a slow
second of a shared machine falls on all of them. A ratio is the median over rounds of other / ours:
above 1, ours wins.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

LEAST_ROUNDS, MOST_ROUNDS = 5, 200
# PyTorch's threads (OpenMP) go on spinning for some milliseconds after their work: without a rest
# whoever came next had to share the cores with them, a pool of 5 ms in 10.
REST_SECONDS = 0.01
BURST = 20  # calls that an accelerator is handed before it is waited for


@dataclass(frozen=True)
class Candidate:
    """A call that returns when its work is done, and the bytes it needs besides its results.

    calls: how often a run does the work.
    """

    run: Callable[[], object]
    temporary_bytes: int | None = None
    calls: int = 1


def queued(
    start: Callable[[], object],
    wait: Callable[[object], object],
    temporary_bytes: int | None = None,
    in_a_row: int = 1,
) -> Candidate:
    """Return work that is started, then awaited: after `in_a_row` starts on CPU, BURST elsewhere.

    On an accelerator a start costs more than a small kernel takes, and what is trained there is
    not waited for at every step.
    """
    calls = in_a_row if jax.default_backend() == "cpu" else BURST

    def run() -> object:
        for _ in range(calls - 1):
            start()
        return wait(start())

    return Candidate(run, temporary_bytes, calls)


@dataclass(frozen=True)
class Cell:
    """One piece of work: labels, and what makes its candidates (ours first) when its turn comes.

    In place of a candidate that cannot run here stands the reason. images: how many the work is
    about, where images a second are what one asks for. once: each candidate runs once and is not
    warmed up, where a run takes minutes or its first is what one asks for.
    """

    labels: Mapping[str, str]
    make: Callable[[], Mapping[str, Candidate | str]]
    images: int | None = None
    once: bool = False


def compiled(function: Callable[..., Any], *args: Any, options: Any = None) -> Candidate:
    """Compile a JAX function for these arguments."""
    program = jax.jit(function, compiler_options=options).lower(*args).compile()
    memory = program.memory_analysis()
    return queued(
        lambda: program(*args),
        jax.block_until_ready,
        None if memory is None else int(memory.temp_size_in_bytes),
    )


def measure(cell: Cell, *, seconds: float, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return one row a candidate; `seconds` bounds the measured time (at least 5 rounds).

    The candidates `without` are left out. Raises ValueError where there are no such ones, and
    where none remains.
    """
    candidates = _but(cell.make(), without)
    runs = {name: item for name, item in candidates.items() if isinstance(item, Candidate)}
    calls = {name: item.run for name, item in runs.items()}
    times = rounds(calls, 1) if cell.once else interleaved(calls, seconds)
    times = {name: [t / runs[name].calls for t in each] for name, each in times.items()}
    first = next(iter(runs))
    rows = []
    for name, item in candidates.items():
        row: dict[str, Any] = {**cell.labels, "candidate": name}
        if isinstance(item, str):
            rows.append({**row, "absent": item})
            continue
        mine, others = times[first], times[name]
        ratios = [other / one for one, other in zip(mine, others, strict=True)]
        rows.append(
            {
                **row,
                "median_ms": statistics.median(others) * 1e3,
                "min_ms": min(others) * 1e3,
                "max_ms": max(others) * 1e3,
                "rounds": len(others),
                "ratio": statistics.median(ratios),
                "temporary_bytes": item.temporary_bytes,
            }
        )
        if cell.images is not None:
            rows[-1]["images_per_second"] = cell.images / statistics.median(others)
    return rows


def _but(
    candidates: Mapping[str, Candidate | str], without: Collection[str]
) -> Mapping[str, Candidate | str]:
    remaining = {name: item for name, item in candidates.items() if name not in without}
    found = set(without) <= set(candidates)
    if not found or not any(isinstance(item, Candidate) for item in remaining.values()):
        names = ", ".join(candidates)
        raise ValueError(f"--without: expected some, not all, of {names}; got {', '.join(without)}")
    return remaining


def interleaved(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Return the seconds that each call took in every round, after one or two to warm up."""
    begin = time.perf_counter()
    for run in runs.values():
        run()
    if time.perf_counter() - begin < seconds:
        for run in runs.values():
            run()
    return rounds(runs, LEAST_ROUNDS, MOST_ROUNDS, seconds)


def rounds(
    runs: Mapping[str, Callable[[], object]],
    least: int,
    most: int | None = None,
    seconds: float = 0,
) -> dict[str, list[float]]:
    """Return the seconds that each call took in every round: at least so many, then until time."""
    names, times = list(runs), {name: list[float]() for name in runs}
    begin = time.perf_counter()
    for turn in range(most or least):
        if turn >= least and time.perf_counter() - begin > seconds:
            break
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            time.sleep(REST_SECONDS)
            before = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - before)
    return times


def summarise(rows: Iterable[Mapping[str, Any]], group: Sequence[str]) -> list[dict[str, Any]]:
    """Return, per group of labels and candidate, the geometric mean and the least of the ratios."""
    keys = [*group, "candidate"]
    told = [row for row in rows if "ratio" in row]
    told.sort(key=lambda row: [str(row[key]) for key in keys])
    result = []
    for values, members in itertools.groupby(told, lambda row: [row[key] for key in keys]):
        ratios = [row["ratio"] for row in members]
        result.append(
            {
                **dict(zip(keys, values, strict=True)),
                "cells": len(ratios),
                "geometric_mean": statistics.geometric_mean(ratios),
                "least": min(ratios),
            }
        )
    return result

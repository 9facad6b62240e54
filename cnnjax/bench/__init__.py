"""Benchmarks: what a piece costs beside what a user would write instead.

    rows = run(WORKLOADS["pooling"], seconds=1.0)

A workload is a module with `cells() -> Iterator[Cell]` and GROUP, the labels over which a mean of
ratios is formed. Adding one is such a module plus one row here. A cell is one piece of work; its
first candidate is ours, the others are measured beside it, interleaved in one process.
"""

from __future__ import annotations

from collections.abc import Mapping

WORKLOADS: Mapping[str, tuple[str, str]] = {
    "pooling": ("cnnjax.bench.pooling", "pooling, forward and with its gradient"),
    "conv": ("cnnjax.bench.conv", "convolution and its gradients, alone and inside a scan"),
    "seeds": ("cnnjax.bench.seeds", "8 seeds one after another, as one program, in processes"),
    "data": ("cnnjax.bench.data", "images a second from memory and JPEG files, beside the step"),
    "step": ("cnnjax.bench.step", "a training step of three networks"),
    "compile": ("cnnjax.bench.compilation", "compile time and memory of deep networks' steps"),
    "epoch": ("cnnjax.bench.epoch", "an epoch as one dispatch, beside the host loop"),
    "shifts": ("cnnjax.bench.shifts", "all circular shifts by one dense pass, beside rolling"),
    "study": ("cnnjax.bench.study", "the default study beside plain Flax and PyTorch scripts"),
    "many": ("cnnjax.bench.many", "a study of 10,000 trials: list, resume, report, load"),
    "engine": ("cnnjax.bench.engine", "what the engine of studies costs a trial"),
}

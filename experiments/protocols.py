"""usage: python -m experiments.protocols RUN [--images=N] [--margin=N] [--seed=N]

One checkpoint through every published protocol, each beside the exact figure of its own shift set.

RUN is a finished run of `cnnjax train --out` or a trial of a study. The first N test images are
judged. `adobe224` crops --margin pixels from every side and `azulay_diag` puts 4 around the image,
so a network that takes one size alone has no answer there, which the table says.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax import build, data
from cnnjax.cli import answer
from cnnjax.cli.flags import Flags
from cnnjax.invariance import metrics
from cnnjax.invariance.exhaustive import exhaustive
from cnnjax.invariance.logits import InEvaluation
from cnnjax.invariance.protocols import PROTOCOLS
from cnnjax.study.trained import load


def main(words: list[str]) -> int:
    """Print the table as Markdown."""
    flags = Flags("experiments.protocols", __doc__ or "")
    flags.integer("images", 512, "test images")
    flags.integer("margin", 2, "pixels that adobe224 crops from every side")
    flags.integer("seed", 0, "of the protocols' random shifts", least=0)
    rest = flags.parse(words)
    if rest is None:
        return 0
    if len(rest) != 1:
        raise ValueError(f"expected one run, got {rest}")
    for line in table(rest[0], images=flags.images, margin=flags.margin, seed=flags.seed):
        print(line, flush=True)
    return 0


def table(run: str, *, images: int, margin: int, seed: int) -> list[str]:
    """Return the table's lines for the network of a finished run."""
    trained = load(run)
    dataset = data.load(trained.config.dataset, trained.config.data_dir)
    x = build.build_input(dataset)(jnp.asarray(dataset.test.images[:images]))
    y = dataset.test.labels[:images]
    call = InEvaluation(trained.net)
    predict = jax.jit(lambda x: call(trained.variables, x))
    lines = ["| protocol | as published | exact, same shifts |", "|---|---|---|"]
    for name, protocol in PROTOCOLS.items():
        own: dict[str, Any] = {"margin": margin} if name == "adobe224" else {}
        try:
            lines.append(row(name, protocol(predict, x, y, seed=seed, **own)))
        except ValueError as error:
            lines.append(f"| {name} | no answer: {str(error).splitlines()[0]} | |")
    result = exhaustive(trained.net, trained.variables, x)
    classes = result.logits.argmax(-1)
    found = {"consistency": metrics.consistency(classes)}
    found["worst case"] = metrics.worst_case_accuracy(classes, y)
    lines.append(row(f"all {classes.shape[1]} circular shifts ({result.route})", {}, found))
    return lines


def row(name: str, found: Mapping[str, float], exact: Mapping[str, float] | None = None) -> str:
    """Return one line: what the protocol reports, and the exact figure where there is one."""
    published = [f"{k} {v:.4f}" for k, v in found.items() if k != "exact"]
    whole = [f"{found['exact']:.4f}"] if "exact" in found else []
    whole += [f"{k} {v:.4f}" for k, v in (exact or {}).items()]
    return f"| {name} | {', '.join(published)} | {', '.join(whole)} |"


if __name__ == "__main__":
    sys.exit(answer("protocols", lambda: main(sys.argv[1:])))

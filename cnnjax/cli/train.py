"""usage: cnnjax train [--FIELD=value...] [--out DIR]

Train one network and measure it: accuracy, accuracy at shifted places, shift consistency.

  cnnjax train --pool=aps --stride=3 --padding=CIRCULAR --head=gap
  cnnjax train --net=lenet5_modern --dataset=mnist --data_dir=DIR --epochs=3 --out=runs/lenet

With --out the run is kept in DIR: config.json, env.json, metrics.jsonl, variables.npz, result.json.
"""

from __future__ import annotations

import sys
from typing import Any

from cnnjax.cli.flags import Flags
from cnnjax.config import Config
from cnnjax.study.trial import TrialFiles, limit_threads, measure, run, run_in
from cnnjax.train.parallel import make_plan


def main(words: list[str]) -> int:
    """Run the verb; return the exit status: 1 where the loss stopped being finite."""
    flags = Flags("train", __doc__ or "")
    flags.config(sweep=False)
    flags.string("out", None, "directory of the run (default: nothing is kept)")
    rest = flags.parse(words)
    if rest is None:
        return 0
    if rest:
        raise ValueError(f"expected flags only, got {' '.join(rest)!r}")
    config = Config(**{name: values[0] for name, values in flags.given_config().items()})
    limit_threads(config.threads)
    plan = make_plan(config.parallel, config.devices)
    plan.check(batch_size=config.batch_size, microbatches=config.microbatches)
    result = _run(config, flags.out)
    if result["status"] == "failed":
        print(f"cnnjax train: {result['reason']}", file=sys.stderr)
        return 1
    for name, value in result["metrics"].items():
        print(f"{name:16}{value:.4f}" if isinstance(value, float) else f"{name:16}{value}")
    return 0


def _run(config: Config, out: str | None) -> dict[str, Any]:
    if out is None:
        return measure(config, show)
    if TrialFiles(out).result() is not None:
        return run(config, out)
    return run_in(TrialFiles(out), config, show)


def show(line: dict[str, Any]) -> None:
    """Print one epoch's line on stderr."""
    rate = line["images"] / line["seconds"]
    print(
        f"epoch {line['epoch']:3}  loss {line['loss']:.4f}  accuracy {line['accuracy']:.4f}  "
        f"{rate:,.0f} images/s",
        file=sys.stderr,
    )

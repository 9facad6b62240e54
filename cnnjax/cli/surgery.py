"""usage: cnnjax surgery RUN [--pool=..] [--padding=..] [--head=..] [--finetune_steps=N] [--out=DIR]

Give the trained network of RUN (a directory of `cnnjax train --out`, or trials/<id> of a study)
another pool, window, stride, padding or head, keep its weights, and measure what that costs.

  cnnjax surgery runs/max --pool=aps --padding=CIRCULAR
  cnnjax surgery runs/max --pool=max_blur --finetune_steps=200 --out=runs/blurred

With --finetune_steps it is then trained that many steps. With --out the result is a run of its own,
for `certify`, `predict` and the like. A change that alters the shape of a trained leaf is refused.
"""

from __future__ import annotations

from typing import Any

from cnnjax.cli.flags import Flags
from cnnjax.study.surgery import CUTS, operate


def main(words: list[str]) -> int:
    """Run the verb; return 0."""
    flags = Flags("surgery", __doc__ or "")
    flags.config(sweep=False, only=(*CUTS, "data_dir", "lr"))
    flags.integer("finetune_steps", 0, "steps of training afterwards", least=0)
    flags.string("out", None, "directory that becomes a run of its own (default: nothing is kept)")
    rest = flags.parse(words)
    if rest is None:
        return 0
    if len(rest) != 1:
        raise ValueError(f"expected one directory of a trained run, got {' '.join(rest) or 'none'}")
    given = {name: values[0] for name, values in flags.given_config().items()}
    aside = {name: given.pop(name, None) for name in ("data_dir", "lr")}
    found = operate(rest[0], given, finetune_steps=flags.finetune_steps, out=flags.out, **aside)
    print("\n".join(lines(found)))
    return 0


def lines(found: dict[str, Any]) -> list[str]:
    """Return what surgery found: a line a metric, then which leaves are new or gone."""
    stages = [name for name in ("before", "after", "tuned") if found[name] is not None]
    heads = [*stages, *(f"{name} - before" for name in stages[1:])]
    width = max(map(len, found["before"]))
    shown = [" " * width + "".join(f"{head:>16}" for head in heads)]
    for name in found["before"]:
        values = [found[stage].get(name) for stage in stages]
        if all(isinstance(value, float) for value in values):
            changes = [value - values[0] for value in values[1:]]
            cells = [f"{v:16.4f}" for v in values] + [f"{v:+16.4f}" for v in changes]
            shown.append(f"{name:{width}}" + "".join(cells))
    for name, what in (("fresh", "untrained"), ("dropped", "without a place")):
        if found[name]:
            shown.append(f"{what}: {', '.join(found[name])}")
    return shown

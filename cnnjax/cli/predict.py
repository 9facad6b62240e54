"""usage: cnnjax predict RUN IMAGE_OR_DIR... [--top=N] [--json]

Say what pictures show: class and probability by the network of RUN, a directory of `cnnjax train
--out` or a trial of a study. Pictures are read as the run's own were (size, fit, channels) and a
directory is searched for PNG, JPEG, BMP, GIF and WebP files. Probabilities are scaled by the
temperature that the run fitted on its validation split; a run without one gives them as they are.

  cnnjax predict runs/pets cat.jpg holiday/ --top=3
  cnnjax predict runs/pets holiday/ --json > verdicts.json

Files that cannot be read are skipped with a warning and counted, and so are links that lead out of
a directory; status 1 where none could be read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from cnnjax.cli.flags import Flags
from cnnjax.study.predict import Skipped, Verdict, find, predict
from cnnjax.study.trained import Trained, load

NOTHING_READ = 1


def main(words: list[str]) -> int:
    """Run the verb; return the exit status. A directory without a trained run raises OSError."""
    flags = Flags("predict", __doc__ or "")
    flags.integer("top", 5, "how many classes to name")
    flags.boolean("json", "print one JSON document instead of lines")
    rest = flags.parse(words)
    if rest is None:
        return 0
    if len(rest) < 2:
        raise ValueError("expected a run and pictures, as in `cnnjax predict RUN cat.jpg`")
    run, *names = rest
    paths, trained = find(names), load(run)
    found = list(shown(predict(trained, paths, top=flags.top), total=len(paths), quiet=flags.json))
    if flags.json:
        print(json.dumps(document(trained, found), indent=1))
    skipped = sum(isinstance(item, Skipped) for item in found)
    if skipped:
        print(f"cnnjax predict: skipped {skipped} of {len(found)} files", file=sys.stderr)
    return NOTHING_READ if skipped == len(found) else 0


def shown(
    items: Iterable[Verdict | Skipped], *, total: int, quiet: bool
) -> Iterator[Verdict | Skipped]:
    """Yield the items; a bar and warnings on standard error, lines on standard output."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    bar = track(
        items, "pictures", total, console=console, disable=not console.is_terminal, transient=True
    )
    for item in bar:
        if isinstance(item, Skipped):
            print(f"cnnjax predict: skipped {item.reason}", file=sys.stderr)
        elif not quiet:
            pairs = zip(item.classes, item.probabilities, strict=True)
            verdict = ", ".join(f"{name} {value:.4f}" for name, value in pairs)
            print(on_one_line(f"{item.path}: {verdict}"))
        yield item


def on_one_line(text: str) -> str:
    """Return text with what cannot be printed escaped: line ends in names, names not in UTF-8."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def document(trained: Trained, items: Iterable[Verdict | Skipped]) -> dict[str, Any]:
    """Return the verdicts and the skipped files, ready for JSON."""
    pictures, skipped = [], []
    for item in items:
        if isinstance(item, Skipped):
            skipped.append({"path": str(item.path), "reason": item.reason})
        else:
            top = [
                {"class": name, "probability": value}
                for name, value in zip(item.classes, item.probabilities, strict=True)
            ]
            pictures.append({"path": str(item.path), **top[0], "top": top})
    about = {"run": str(trained.root), "temperature": trained.temperature}
    return {**about, "pictures": pictures, "skipped": skipped}

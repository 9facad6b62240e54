"""`cnnjax data`: which data sets there are, fetch one, check one: words -> exit status.

    cnnjax data list [--data_dir=DIR]
    cnnjax data fetch NAME [--data_dir=DIR] [--mirror=URL] [--timeout=SECONDS]
    cnnjax data verify NAME [--data_dir=DIR]

Data lie in --data_dir, else in $CNNJAX_DATA, else in ~/.cache/cnnjax.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from cnnjax import spec
from cnnjax.data import DATASETS, data_root
from cnnjax.data.fetch import STALL_SECONDS, Report, downloadable, fetch, verify
from cnnjax.data.files import locate


def main(argv: list[str]) -> int:
    """Run `cnnjax data <argv>`; the user's mistakes raise ValueError or OSError."""
    values = define_flags()
    try:
        words = values(["cnnjax data", *argv])[1:]
    except flags.Error as error:
        raise ValueError(f"cnnjax data: {error}") from error
    if values.help:
        print(__doc__, values.module_help(__name__), sep="\n")
        return 0
    if not words:
        raise ValueError(f"cnnjax data: expected one of {', '.join(VERBS)}; see --help")
    verb = spec.find(VERBS, words[0], "cnnjax data")
    return verb(words[1:], values)


def define_flags() -> flags.FlagValues:
    """Return this command's own flags, apart from the global ones."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "data_dir", None, "where data lie; else $CNNJAX_DATA or ~/.cache/cnnjax", values
    )
    flags.DEFINE_string(
        "mirror",
        None,
        "address below which the official file names are found, instead of the official sites; "
        "else $CNNJAX_MIRROR",
        values,
    )
    flags.DEFINE_float(
        "timeout", STALL_SECONDS, "seconds without a byte after which a line has stalled", None,
        None, values,
    )  # fmt: skip
    flags.DEFINE_boolean("help", False, "say how this command is used", values)
    return values


def list_sets(words: list[str], values: flags.FlagValues) -> int:
    """Print the table of data sets, and which of them can be loaded now."""
    from rich.console import Console
    from rich.table import Table

    if words:
        raise ValueError(f"cnnjax data list: takes no names, got {' '.join(words)}")
    root = data_root(values.data_dir)
    table = Table("name", "shape", "classes", "files", "what", caption=f"data in {root}")
    for card in DATASETS.values():
        shape = "x".join(map(str, card.image_shape))
        table.add_row(card.name, shape, str(len(card.classes)), presence(card.name, root),
                      card.summary)  # fmt: skip
    Console().print(table)
    return 0


def presence(name: str, root: Path) -> str:
    """Say whether a set needs files and, if so, whether they are there (unread, unverified)."""
    card = DATASETS[name]
    if card.embedded:
        return "embedded"
    if not card.layouts:
        return "your own"
    try:
        folder, files = locate(card, root)
    except OSError:
        return "missing"
    there = sum(any((folder / n).is_file() for n in (f.name, f"{f.name}.gz")) for f in files)
    return "present" if there == len(files) else f"{there} of {len(files)}"


def fetch_set(words: list[str], values: flags.FlagValues) -> int:
    """Download one data set with a progress bar, and say where it is."""
    name = only_name("fetch", words)
    with progress() as report:
        folder = fetch(
            name, values.data_dir, mirror=values.mirror, timeout=values.timeout, report=report
        )
    print(f"{name}: verified, in {folder}")
    return 0


def verify_set(words: list[str], values: flags.FlagValues) -> int:
    """Compare the files of one data set with the official checksums."""
    name = only_name("verify", words)
    folder = verify(downloadable(name), data_root(values.data_dir))
    print(f"{name}: every file in {folder} is the official one")
    return 0


def only_name(verb: str, words: list[str]) -> str:
    """Return the one name that a verb takes."""
    if len(words) != 1:
        got = " ".join(words) or "none"
        raise ValueError(f"cnnjax data {verb}: expected one name of a data set, got {got}")
    return words[0]


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """Show a bar for each file, with speed and time left, on standard error."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield report


VERBS: dict[str, Callable[[list[str], flags.FlagValues], int]] = {
    "list": list_sets,
    "fetch": fetch_set,
    "verify": verify_set,
}

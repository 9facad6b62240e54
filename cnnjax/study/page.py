"""The tables of a study's page in docs/studies, as Markdown, and the record they are made from.

    python -m cnnjax.study.page runs/blur_where docs/studies/blur_where.csv

prints the tables of a study directory and writes the record: a row a trial, its arm, seed and
figures. A record makes the same tables again, wherever the directory has gone:

    tables(STUDY, read(Path("docs/studies/blur_where.csv")))
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from cnnjax.study import statistics
from cnnjax.study.grid import Contrast, Study
from cnnjax.study.results import HEADLINES, distinct, label
from cnnjax.study.statistics.family import facts
from cnnjax.study.store import Store
from cnnjax.study.table import cells

SHOWN = {
    **HEADLINES,
    "circular_consistency": "consistency, all circular shifts",
    "logit_orbit": "distinct logits",
}
KEPT = ("id", "same_as", "status", "reason", "seed", "parameters", "seconds")
# So few arms are compared in all pairs, more of them level by level alone.
FEW = 6
FACTS = ("commit", "cpu", "cores", "threads", "python", "jax", "jaxlib", "flax", "optax")


def tables(study: Study, runs: pd.DataFrame) -> str:
    """Return the tables: arms, which factor decides, levels against each other, the contrast.

    Data sets are not averaged over: each has its own tables. Differences are paired over seeds and
    over the other axes, Holm's correction runs over the rows of one table.
    """
    inner = [factor for factor in study.factors if factor != ("dataset",)]
    parts = [
        text
        for title, part in _by_dataset(study, runs)
        for text in (
            title,
            _arms(inner, part),
            _shares(inner, part),
            *_compared(study, inner, part),
        )
    ]
    if study.contrast:
        parts.append(statistics.sentence(statistics.compare(runs, study.contrast)))
    return "\n\n".join(filter(None, parts)) + "\n"


def record(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Return what the tables are made from: arm, seed and figures of every trial."""
    columns = [*KEPT, *(name for name in study.axes if name != "seed"), *_shown(runs)]
    return runs[columns]


def read(path: Path) -> pd.DataFrame:
    """Return the runs of a runs.csv or a record."""
    text = dict.fromkeys(("id", "same_as", "status", "reason"), str)
    runs = pd.read_csv(path, dtype=text)
    return runs.fillna(dict.fromkeys(text, ""))


def _shown(runs: pd.DataFrame) -> dict[str, str]:
    return {name: words for name, words in SHOWN.items() if name in runs}


def _by_dataset(study: Study, runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if ("dataset",) not in study.factors:
        yield "", runs
        return
    for name, part in runs.groupby("dataset", sort=False):
        yield f"### {name}", part


def _arms(factors: Sequence[tuple[str, ...]], runs: pd.DataFrame) -> str:
    names = [name for factor in factors for name in factor]
    header, rows = cells(runs, names, _shown(runs))
    return _markdown(header, rows)


def _shares(factors: Sequence[tuple[str, ...]], runs: pd.DataFrame) -> str:
    """Return the analysis of variance of every metric, side by side; nothing for one factor."""
    if len(factors) < 2:
        return ""
    by = [factor if len(factor) > 1 else factor[0] for factor in factors]
    found = {m: statistics.factors(runs, by, m) for m in _shown(runs)}
    effects = next(iter(found.values()))["effect"]
    rows = [
        [effect, *(_share(table.iloc[place]) for table in found.values())]
        for place, effect in enumerate(effects)
    ]
    return _markdown(["share of the variance between arms", *_shown(runs).values()], rows)


def _share(row: pd.Series) -> str:
    if pd.isna(row["share"]):
        return "-"
    star = "*" if row["p_holm"] < statistics.ALPHA else ""
    return f"{_percent(row['share'])} [{_percent(row['low'])}, {_percent(row['high'])}]{star}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _compared(
    study: Study, factors: Sequence[tuple[str, ...]], runs: pd.DataFrame
) -> Iterator[str]:
    """Yield levels and, where they are few, arms against each other in the contrast's metric."""
    metric = study.contrast.metric if study.contrast else next(iter(HEADLINES))
    header = [
        f"in {SHOWN.get(metric, metric)}",
        "difference",
        "95 % interval",
        "p, Holm",
        "verdict",
    ]
    names = [name for factor in factors for name in factor]
    compared = [_levels(study, factors, runs, metric)]
    if len(factors) > 1 and runs.groupby(names, sort=False).ngroups <= FEW:
        compared.append(statistics.family(runs, names, metrics=(metric,), pairs="all"))
    for table in compared:
        yield _markdown(header, [_level(row) for _, row in table.iterrows()])


def _levels(
    study: Study, factors: Sequence[tuple[str, ...]], runs: pd.DataFrame, metric: str
) -> pd.DataFrame:
    """Return each level of a factor against each before it, as `family` has it."""
    rows = []
    for factor in factors:
        levels = list(zip(*(study.axes[name] for name in factor), strict=True))
        for b, a in itertools.combinations(levels, 2):
            arm, against = (dict(zip(factor, level, strict=True)) for level in (a, b))
            found = statistics.compare(runs, Contrast(metric, arm, against))
            if found is not None:
                rows.append({"arm_a": _words(arm), "arm_b": _words(against)} | facts(found.paired))
    return statistics.correct(pd.DataFrame(rows))


def _level(row: pd.Series) -> list[str]:
    interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    pair = f"{row['arm_a']} against {row['arm_b']}"
    return [pair, f"{row['difference']:+.3f}", interval, f"{row['p_holm']:.2g}", row["verdict"]]


def _words(choices: dict[str, object]) -> str:
    return ", ".join(f"{name} {label(value)}" for name, value in choices.items())


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def provenance(store: Store, runs: pd.DataFrame) -> str:
    """Return where the numbers were made, in one line."""
    trained = distinct(runs)
    first = trained.iloc[0]
    env = store.trial(first["same_as"] or first["id"]).env()
    made = ", ".join(f"{fact} {env.get(fact, 'unknown')}" for fact in FACTS)
    return f"{len(trained)} trials, {trained['seconds'].sum():.0f} s in all; {made}"


def main(words: list[str]) -> None:
    """Print the tables of a study directory; write the record where a second path is given."""
    store = Store(words[0])
    study = Study.from_description(json.loads((store.root / "study.json").read_text()))
    runs = read(store.root / "runs.csv")
    print(tables(study, runs))
    print(provenance(store, runs))
    for path in words[1:]:
        record(study, runs).to_csv(Path(path), index=False)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What stands behind the figures: cards, certificates, failures, every trial, where it all ran.

cards(evidence), certificates(evidence), failures(evidence), trials(evidence), provenance(...)
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from typing import Any

from cnnjax.config import Config
from cnnjax.study.report import rerun
from cnnjax.study.report.cards import COLUMNS, read_cards
from cnnjax.study.report.certificates import read_certificates
from cnnjax.study.report.evidence import Evidence, Source
from cnnjax.study.report.markup import ABSENT, Markup, join, number, numeric, table, tag
from cnnjax.study.results import HEADLINES, distinct, words

MOST_TRIALS = 2000
MOST_VALUES = 20
TITLES = {
    "parameters": "parameters",
    "flops": "FLOPs an image",
    "activation_bytes": "activation bytes",
    "resolution": "last map",
    "receptive_field": "receptive field (px)",
    "total_stride": "total stride (px)",
    "phase": "sampling phase (px)",
    "constant_gain": "gain of a constant",
    "seconds": "seconds a trial",
}


def cards(evidence: Evidence) -> Markup:
    """Return what else differs between the arms: a row an arm, beside the first arm's values."""
    found, problem = read_cards(evidence)
    if not found:
        return tag("p", problem, class_="note") if problem else Markup("")
    first = next(iter(found.values()))
    rows = [
        [*arm.key, *(_fact(name, found[arm.name][name], first[name]) for name in COLUMNS)]
        for arm in evidence.arms
        if arm.name in found
    ]
    header = [*evidence.by, *(TITLES[name] for name in COLUMNS)]
    grid = table(header, rows, ident="cards", caption="confound cards", tools="filter copy")
    note = tag("p", problem, class_="note") if problem else ""
    return join([tag("p", CARDS), grid, note])


CARDS = (
    "Arms that differ in what they cost or see may differ for that reason. Values unlike those of "
    "the first arm stand in bold, with their ratio to it. The field, stride and phase are those of "
    "the last map."
)


def _fact(name: str, value: Any, first: Any) -> Markup:
    if value is None or isinstance(value, str):
        shown, exact = value or ABSENT, None
    else:
        shown, exact = number(value, ",.0f" if isinstance(value, int) else ",.4g"), value
    if value == first or value is None or name == "seconds":
        return numeric(exact, shown)
    ratio = f" ×{value / first:.2f}" if exact is not None and first else ""
    return numeric(exact, join([tag("b", shown), tag("small", ratio)]))


def certificates(evidence: Evidence) -> Markup:
    """Return what each arm guarantees, arms of one verdict together, each with its proof."""
    found = read_certificates(evidence)
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, own in found.items():
        groups.setdefault(own["verdict"], []).append((name, own["paragraph"]))
    if not groups:
        return Markup("")
    blocks = [_certificate(verdict, arms) for verdict, arms in groups.items()]
    silent = len(evidence.arms) - len(found)
    note = tag("p", f"{silent} arms were not examined.", class_="note") if silent else ""
    return join([tag("p", CERTIFICATES), *blocks, note])


CERTIFICATES = (
    "Proved in exact arithmetic, of each arm's first finished run: with --battery=cheap at each "
    "phase of its total stride, with --battery=full at every circular shift and layer by layer."
)


def _certificate(verdict: str, arms: list[tuple[str, str]]) -> Markup:
    badge = tag("span", verdict, class_="badge") if verdict else ""
    names = "; ".join(name for name, _ in arms)
    proofs = [tag("p", tag("b", name), " ", paragraph) for name, paragraph in arms[:MOST_VALUES]]
    more = len(arms) - len(proofs)
    rest = tag("p", f"and {more} more", class_="note") if more else ""
    count = "The proof" if len(arms) == 1 else f"The {len(arms)} proofs"
    return tag(
        "div",
        tag("p", badge, " ", tag("b", names)),
        tag("details", tag("summary", count), *proofs, rest),
        class_="card",
    )


def failures(evidence: Evidence) -> Markup:
    """Return the trials that failed, each with its reason."""
    failed = evidence.runs[evidence.runs["status"] == "failed"]
    if failed.empty:
        return Markup("")
    rows = [
        [*(words(row[a]) for a in evidence.by), words(row["seed"]), row["reason"], _id(row["id"])]
        for row in failed.to_dict("records")[:MOST_TRIALS]
    ]
    header = [*evidence.by, "seed", "reason", "trial"]
    text = f"{len(failed)} of {len(evidence.runs)} trials failed"
    return table(header, rows, ident="failures", caption=text, tools="filter copy")


def trials(evidence: Evidence) -> Markup:
    """Return every finished trial with its figures and the command that runs it again."""
    if evidence.runs.empty:
        return Markup("")
    configs = {t.id: t.config for source in evidence.sources for t in source.trials}
    header = [
        *evidence.by,
        "seed",
        *(HEADLINES.get(m, m) for m in evidence.main_metrics),
        "trial",
        "run it again",
    ]
    rows = [
        _trial(evidence, row, configs) for row in evidence.runs.to_dict("records")[:MOST_TRIALS]
    ]
    grid = table(header, rows, ident="trials", caption="every trial", tools="filter copy")
    hidden = len(evidence.runs) - len(rows)
    note = f" The other {hidden} are in runs.csv." if hidden > 0 else ""
    summary = tag("summary", f"All {len(evidence.runs)} trials, each with its command")
    return tag("details", summary, tag("p", RERUN + note), grid)


RERUN = (
    "The command trains the trial of that name anew and prints its figures; add --out=DIR to keep "
    "them. Same versions, same kind of processor: the same figures."
)


def _trial(evidence: Evidence, row: dict[Any, Any], configs: dict[str, Config]) -> list[Any]:
    again = rerun.command(configs[row["id"]])
    shown = tag("details", tag("summary", "command"), tag("code", again))
    return [
        *(words(row[axis]) for axis in evidence.by),
        numeric(row["seed"], row["seed"]),
        *(numeric(row[metric]) for metric in evidence.main_metrics),
        _id(row["id"]),
        tag("td", shown),
    ]


def _id(trial_id: str) -> Markup:
    return tag("td", tag("code", trial_id))


def provenance(evidence: Evidence) -> Markup:
    """Return how the figures were made: every distinct value, and how many trials have it."""
    parts = [_source(source) for source in evidence.sources]
    rows = list(_facts(evidence))
    grid = table(["what", "value (trials)"], rows, ident="provenance", caption="where it all ran")
    return join([*parts, grid])


def _source(source: Source) -> Markup:
    where = shlex.quote(str(source.store.root))
    made = source.command or "not recorded (the study is of an older version)"
    report = f"cnnjax report {where}"
    return join(
        [
            tag("h3", source.label),
            tag("p", "The whole study; finished trials are not run again:"),
            _command(made),
            tag("p", "This page alone:"),
            _command(report),
        ]
    )


def _command(text: str) -> Markup:
    return tag("pre", tag("code", text), tabindex=0)


def _facts(evidence: Evidence) -> Iterator[list[Any]]:
    """Yield (what, its distinct values with their numbers of trials)."""
    trained = distinct(evidence.runs)
    done = trained[trained["status"] == "done"]
    data = zip(done["dataset"], done["data_sha256"], strict=True)
    seeds = [int(s) for s in evidence.runs["seed"].dropna()]
    yield ["seeds", ", ".join(map(str, sorted(set(seeds)))) or ABSENT]
    yield [
        "data",
        _values(
            f"{name}, sha256 {sha if isinstance(sha, str) else 'unknown'}" for name, sha in data
        ),
    ]
    names = dict.fromkeys(key for env in evidence.envs.values() for key in env)
    for name in names:
        yield [name, _values(str(env.get(name, "unknown")) for env in evidence.envs.values())]
    seconds = trained["seconds"].sum()
    yield ["training and measuring", f"{seconds:.0f} s over {len(trained)} trials"]


def _values(values: Iterator[str]) -> Markup:
    counts = Counter(values)
    if not counts:
        return tag("td", "nothing recorded yet")
    shown = [
        tag("div", value, tag("small", f" ({n})") if len(counts) > 1 else "")
        for value, n in counts.most_common(MOST_VALUES)
    ]
    more = len(counts) - len(shown)
    return tag("td", *shown, tag("div", f"and {more} more") if more else "")

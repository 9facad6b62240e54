"""The page: sections in order, in one HTML file with its style and script inside.

    text = render(gather([Source.read(store)]))

The page's own policy lets nothing in from outside: no network, no script but the one it carries.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

from cnnjax.study.report import account, findings, pictures
from cnnjax.study.report.evidence import Evidence, answer
from cnnjax.study.report.markup import Markup, join, tag

PACKAGE = "cnnjax.study.report"


@dataclass(frozen=True)
class Section:
    """A part of the page; it is left out where `draw` returns nothing."""

    ident: str
    title: str
    draw: Callable[[Evidence], Markup]


SECTIONS = (
    Section("results", "Results", findings.arms),
    Section("differences", "Differences", findings.differences),
    Section("trade-off", "Accuracy against consistency", pictures.trade_off),
    Section("distance", "Accuracy against shift", pictures.distance),
    Section("offsets", "Accuracy by offset", pictures.places),
    Section("learning", "Learning curves", pictures.learning),
    Section("images", "Beyond these test images", findings.images),
    Section("confounds", "What else differs", account.cards),
    Section("certificates", "What each arm guarantees", account.certificates),
    Section("failed", "Failed trials", account.failures),
    Section("every-trial", "Every trial", account.trials),
    Section("how", "How it was made", account.provenance),
)


def render(evidence: Evidence, *, reload_seconds: int | None = None) -> str:
    """Return the page; with `reload_seconds` it loads itself anew, as while it is watched."""
    drawn = {s: s.draw(evidence) for s in SECTIONS}
    shown = {s: content for s, content in drawn.items() if content}
    script = _asset("page.js")
    return Template(_asset("page.html")).substitute(
        title=join([title(evidence)]),
        style=_asset("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        reload="" if reload_seconds is None else f' data-reload="{reload_seconds}"',
        banner=banner(evidence, reload_seconds),
        questions=join(tag("p", q, class_="question") for q in _questions(evidence)),
        answers=_answers(evidence),
        contents=join(tag("li", tag("a", s.title, href=f"#{s.ident}")) for s in shown),
        sections=join(_section(s, content) for s, content in shown.items()),
    )


def title(evidence: Evidence) -> str:
    """Return the page's name: the study's, or those of all studies."""
    names = [source.study.name.replace("_", " ") for source in evidence.sources]
    return " and ".join(dict.fromkeys(names))


def banner(evidence: Evidence, reload_seconds: int | None = None) -> Markup:
    """Return how far the study is, where it is not complete."""
    wanted, done = len(evidence.wanted), len(evidence.results)
    if done >= wanted:
        return Markup("")
    watched = " This page is rewritten as results arrive." if reload_seconds else ""
    text = f"{done} of {wanted} trials finished: what follows may still change.{watched}"
    bar = tag("progress", max=wanted, value=done, aria_label="trials finished")
    return tag("div", tag("p", text), bar, class_="banner", role="status")


def _questions(evidence: Evidence) -> list[str]:
    return list(dict.fromkeys(source.study.question for source in evidence.sources))


def _answers(evidence: Evidence) -> Markup:
    """Return the answer, of several studies each one's and, of one contrast, that of all runs."""
    sources = evidence.sources
    if len(sources) == 1:
        return tag("span", answer(sources[0].study, evidence.runs), class_="answer")
    parts = []
    if all(contrast == evidence.contrasts[0] for contrast in evidence.contrasts[1:]):
        parts.append(
            tag("span", f"Together: {answer(sources[0].study, evidence.runs)}", class_="answer")
        )
    for source in sources:
        text = answer(source.study, source.runs)
        parts.append(tag("span", tag("b", source.label), ": ", text, class_="answer"))
    return join(parts)


def _section(section: Section, content: Markup) -> Markup:
    heading = tag("h2", section.title, id=f"{section.ident}-title")
    labelled = f"{section.ident}-title"
    return tag("section", heading, content, id=section.ident, aria_labelledby=labelled)


@cache
def _asset(name: str) -> str:
    return files(PACKAGE).joinpath(name).read_text(encoding="utf-8")

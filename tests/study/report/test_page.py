"""The page as text: escaped, self-contained, and there whatever state the study is in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_checks import check
from report_studies import STUDY, Change, fail_max_3, keep, made_up, write_study

from cnnjax.config import Config
from cnnjax.study import report, results
from cnnjax.study.report import Source, gather, render
from cnnjax.study.report.page import SECTIONS
from cnnjax.study.store import Store


def page_of(*stores: Store, **how: Any) -> str:
    return render(gather([Source.read(store, store.root.name) for store in stores]), **how)


def test_every_section_is_there_and_everything_is_escaped(store: Store) -> None:
    text = page_of(store)
    page = check(text)
    assert {a["id"] for a in page.all("section")} == {section.ident for section in SECTIONS}
    words = page.words()
    assert 'Is <this> & "that" escaped?' in words
    assert "diverged: <why> & worse" in words
    assert "aps <keeps> shifts." in words
    assert "Fast & <odd>" in words
    for raw in ("<this>", "<why>", "<keeps>", "<odd>", "& worse"):
        assert raw not in text


def test_the_answer_is_the_headline_with_its_interval(store: Store) -> None:
    source = Source.read(store)
    heading = re.search(r"<h1.*?</h1>", page_of(store), re.DOTALL)
    assert heading is not None
    said = report.answer(STUDY, source.runs)
    assert "95 % interval [" in said and "Expected higher (A & B): " in said
    assert said.replace("&", "&amp;") in heading[0]


def drop(name: str) -> Change:
    def change(config: Config, result: dict[str, Any]) -> dict[str, Any]:
        if name in result:
            return {k: v for k, v in result.items() if k != name}
        return {**result, "metrics": {k: v for k, v in result["metrics"].items() if k != name}}

    return change


def spoil(value: Any) -> Change:
    def change(config: Config, result: dict[str, Any]) -> dict[str, Any]:
        if config.seed == 0:
            result["metrics"]["accuracy"] = value
            result["places"]["accuracy"] = [value] * 9
        return result

    return change


ONE = {"pool": ("aps",), "stride": (2,), "seed": (0,)}
CASES: dict[str, tuple[dict[str, Any], Change]] = {
    "nothing finished": ({}, lambda config, result: None),
    "one finished": ({}, lambda c, r: r if (c.pool, c.stride, c.seed) == ("aps", 2, 1) else None),
    "one seed": ({"seed": (0,)}, keep),
    "two seeds": ({"seed": (0, 1)}, keep),
    "one arm": ({"pool": ("max",), "stride": (2,)}, keep),
    "one trial": (ONE, keep),
    "one trial, failed": (ONE, lambda c, r: {**r, "status": "failed", "reason": "why <not>"}),
    "all failed": ({}, lambda c, r: {**r, "status": "failed", "reason": "why <not>"}),
    "an arm failed": ({}, fail_max_3),
    "not a number": ({}, spoil(float("nan"))),
    "infinite": ({}, spoil(float("inf"))),
    "absent figure": ({}, spoil(None)),
    "no consistency": ({}, drop("consistency")),
    "no accuracy": ({}, drop("accuracy")),
    "no places": ({}, drop("places")),
    "no certificate": ({}, drop("certificate")),
    "no seconds": ({}, drop("seconds")),
    "no checksum": ({}, drop("data_sha256")),
}


# Of these the figures for papers too, which take seconds.
PRINTED = ("nothing finished", "one trial", "infinite")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_any_state_of_a_study_is_a_page(tmp_path: Path, case: str) -> None:
    choices, change = CASES[case]
    study = STUDY.changed(choices) if choices else STUDY
    store = write_study(tmp_path / "s", study, change)
    evidence = gather([Source.read(store)])
    if case in PRINTED:
        report.write_all(evidence, tmp_path / "page.html", tmp_path / "figures")
    text = render(evidence)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", check(text).words())
    assert not re.search(r'"(nan|inf|None)\b', text)


@pytest.mark.slow
def test_failed_trials_stand_there_with_their_reasons(store: Store) -> None:
    page = page_of(store)
    section = page[page.index('id="failed"') :]
    assert section.count("diverged: &lt;why&gt; &amp; worse") == 3
    assert "3 of 18 trials failed" in section


@pytest.mark.slow
def test_an_unfinished_study_says_how_far_it_is(tmp_path: Path) -> None:
    store = write_study(tmp_path, change=lambda c, r: r if c.seed else None)
    assert "12 of 18 trials finished" in page_of(store)
    assert "data-reload" not in re.sub(r"<script>.*</script>", "", page_of(store), flags=re.DOTALL)
    assert '<body data-reload="5">' in page_of(store, reload_seconds=5)


@pytest.mark.slow
def test_two_hundred_arms_are_one_readable_page(tmp_path: Path) -> None:
    axes = {"lr": tuple(0.001 * i for i in range(1, 21)), "batch_size": tuple(range(10, 20))}
    study = STUDY.changed({"pool": ("aps",), "stride": (2,), **axes})
    trials = study.trials()
    found = {t.id: made_up(t.config) for t in trials}
    runs = results.frame(trials, found)
    text = render(gather([Source("big", Store(tmp_path), study, trials, runs, found)]))
    page = check(text)
    assert len(text.encode()) < 3_000_000
    rows = text[text.index('<table id="arms"') :].split("</table>")[0]
    assert rows.count("<tr>") == 201
    assert "every arm against the one with lr 0.001" in page.words()


def write_twice(tmp_path: Path, how: Callable[[Path], object]) -> list[dict[str, bytes]]:
    found = []
    for name in ("a", "b"):
        how(tmp_path / name)
        files = (p for p in (tmp_path / name).rglob("*") if p.is_file())
        found.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    return found


@pytest.mark.slow
def test_an_unchanged_study_gives_unchanged_bytes(store: Store, tmp_path: Path) -> None:
    def how(folder: Path) -> None:
        evidence = gather([Source.read(store)])
        report.write_all(evidence, folder / "report.html", folder / "figures")

    first, second = write_twice(tmp_path, how)
    assert first == second
    names = {name.removesuffix(".png") for name in first if name.endswith(".png")}
    assert len(names) == 7
    assert all(first[f"{name}.png"].startswith(b"\x89PNG") for name in names)
    assert all(first[f"{name}.pdf"].startswith(b"%PDF") for name in names)


@pytest.mark.slow
def test_several_studies_are_one_table(tmp_path: Path) -> None:
    first = write_study(tmp_path / "first")
    more = write_study(tmp_path / "more", STUDY.changed({"seed": (2, 3, 4)}))
    evidence = gather([Source.read(s, s.root.name) for s in (first, more)])
    assert list(evidence.by) == ["pool", "stride"]
    assert [len(arm.done) for arm in evidence.arms] == [5] * 6  # seed 2 counts once
    assert set(evidence.runs["study"]) == {"first", "more", "first + more"}
    words = check(render(evidence)).words()
    assert "Together: pool aps against pool max" in words
    assert "n = 5 seeds" in words


@pytest.mark.slow
def test_studies_that_differ_in_a_fixed_choice_have_arms_of_their_own(tmp_path: Path) -> None:
    first = write_study(tmp_path / "first")
    other = write_study(tmp_path / "other", STUDY.changed({"epochs": (3,)}), fail_max_3)
    evidence = gather([Source.read(s, s.root.name) for s in (first, other)])
    assert list(evidence.by) == ["pool", "stride", "epochs"]
    assert len(evidence.arms) == 12
    check(render(evidence))


@pytest.mark.slow
def test_provenance_has_every_distinct_value(tmp_path: Path) -> None:
    first = write_study(tmp_path / "first", commit="abc")
    other = write_study(tmp_path / "other", STUDY.changed({"seed": (7,)}), commit="def+")
    words = check(page_of(first, other)).words()
    assert "abc (18)" in words and "def+ (6)" in words
    assert "0, 1, 2, 7" in words
    assert f"sha256 {'d' * 64}" in words
    assert "cnnjax study --out='a b'" in words


def test_real_cards_are_those_of_the_study(
    real_cards: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnjax.study import confounds
    from cnnjax.study.report import cards

    tiny = "digits_canvas:side=18:scale=1:train=40:test=20"
    choices = {"dataset": (tiny,), "pool": ("max", "aps"), "stride": (3,), "widths": ((4, 8),)}
    study = STUDY.changed(choices)
    store = write_study(tmp_path, study)
    evidence = gather([Source.read(store)])
    found, problem = cards.read_cards(evidence)
    wanted = confounds.confounds(study, evidence.runs).set_index("pool")
    assert problem == ""
    for arm in evidence.arms:
        for name in ("parameters", "flops", "receptive_field", "phase", "seconds"):
            assert found[arm.name][name] == wanted.loc[arm.key[0], name]
    monkeypatch.setattr(cards, "card", lambda config: pytest.fail("read from disk"))
    assert cards.read_cards(evidence)[0] == found


def test_lines_that_hold_no_figures_are_no_curve(tmp_path: Path) -> None:
    store = write_study(tmp_path)
    odd = [{"epoch": "one", "loss": 2.0}, {"epoch": 1, "loss": "<b>", "accuracy": None}, {"x": 1}]
    for trial in store.trial_ids():
        lines = "".join(json.dumps(line) + "\n" for line in odd)
        (store.trial(trial).root / "metrics.jsonl").write_text(lines)
    page = check(render(gather([Source.read(store)])))
    assert "Learning curves" not in page.words()

"""The page in headless Chromium: nothing is fetched, no error, tables sort, filter and copy."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_browser import PROGRAM, Browser
from report_studies import STUDY, fail_max_3, write_study

from cnnjax.study import report
from cnnjax.study.report import Source, gather
from cnnjax.study.store import Store

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium here (Debian: apt-get install chromium)"
)

CAUGHT = "window.copied = []; navigator.clipboard.writeText = async (t) => { copied.push(t) }"
SHOWN = "shownRows(document.getElementById('arms')).map((r) => [...r.cells].map(textOf))"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    study = STUDY.changed({"pool": ("max", "lp:p=3", "mean", "aps")})
    store = write_study(folder / "s", study, fail_max_3)
    return report.write_page(gather([Source.read(store)]), folder / "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, page: Path) -> Iterator[Browser]:
    """The page, loaded; at the end nothing was fetched and nothing went wrong."""
    browser.open(page)
    browser.run(CAUGHT)
    yield browser
    browser.run("new Promise((done) => setTimeout(done, 50))")
    assert browser.requests() == [page.as_uri()]
    assert browser.problems() == []


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({selector!r}).click()")


def column(browser: Browser, index: int) -> list[str]:
    return [row[index] for row in browser.run(SHOWN)]


@pytest.mark.slow
def test_what_would_go_out_is_stopped(browser: Browser, page: Path) -> None:
    """The policy of the page, and that this test would see a request."""
    browser.open(page)
    browser.run("new Image().src = 'http://127.0.0.1:9/x.png'; 0")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert browser.problems()


def test_a_click_sorts_by_value_and_another_turns_it(opened: Browser) -> None:
    head = "#arms thead th:nth-child(3)"
    click(opened, f"{head} button")
    means = [text.split()[0] for text in column(opened, 2)]
    assert means[-1] == "–"  # the arm that failed is last, whichever way
    up = [float(m) for m in means[:-1]]
    assert up == sorted(up) and len(up) == 7
    assert opened.run(f"document.querySelector('{head}').ariaSort") == "ascending"
    click(opened, f"{head} button")
    means = [text.split()[0] for text in column(opened, 2)]
    assert [float(m) for m in means[:-1]] == sorted(up, reverse=True) and means[-1] == "–"
    assert opened.run(f"document.querySelector('{head}').ariaSort") == "descending"
    click(opened, "#arms thead th:nth-child(1) button")
    assert column(opened, 0) == sorted(column(opened, 0))
    assert opened.run("document.querySelectorAll('#arms [aria-sort]').length") == 1


@pytest.mark.parametrize("key", ["Enter", " "])
def test_keys_sort_too(opened: Browser, key: str) -> None:
    opened.run("document.querySelector('#arms thead th:nth-child(2) button').focus()")
    opened.press(key)
    assert column(opened, 1) == ["2"] * 4 + ["3"] * 4


def test_the_first_tab_stop_leads_to_the_results(opened: Browser) -> None:
    opened.press("Tab")
    assert opened.run("document.activeElement.className") == "skip"
    opened.press("Enter")
    assert opened.run("location.hash") == "#main"


def test_the_filter_keeps_rows_with_all_words(opened: Browser) -> None:
    field = "document.querySelector('[data-filter=arms]')"
    script = f"{field}.value = %r; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))"
    opened.run(script % "LP 3")
    assert [row[:2] for row in opened.run(SHOWN)] == [["lp:p=3", "2"], ["lp:p=3", "3"]]
    status = "document.querySelector('[data-status=arms]').textContent"
    assert opened.run(status) == "2 of 8 rows"
    opened.run(script % "")
    assert len(opened.run(SHOWN)) == 8


def copied(opened: Browser, name: str) -> str:
    click(opened, f"[data-copy={name}][data-table=arms]")
    return opened.run("new Promise((done) => setTimeout(() => done(copied.at(-1)), 20))")


def test_csv_has_the_full_figures(opened: Browser, page: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(copied(opened, "CSV"))))
    runs = Source.read(Store(page.parent / "s")).runs
    assert len(rows) == 8
    done = runs[runs["status"] == "done"]
    for row in rows:
        own = done[(done["pool"] == row["pool"]) & (done["stride"] == int(row["stride"]))]
        if len(own):
            assert float(row["accuracy"]) == pytest.approx(own["accuracy"].mean(), rel=1e-12)
            assert float(row["accuracy sd"]) == pytest.approx(own["accuracy"].std(), rel=1e-12)
        else:
            assert row["accuracy"] == row["accuracy sd"] == ""


def test_latex_and_markdown_are_tables_of_what_is_shown(opened: Browser) -> None:
    click(opened, "#arms thead th:nth-child(3) button")
    shown = opened.run(SHOWN)
    latex = copied(opened, "LaTeX").splitlines()
    assert latex[0].startswith(r"\begin{tabular}{l") and latex[-1] == r"\end{tabular}"
    assert [latex[i] for i in (1, 3, -2)] == [r"\toprule", r"\midrule", r"\bottomrule"]
    cells = [line.removesuffix(r" \\").split(" & ") for line in latex[4:-2]]
    assert [row[2].replace(r"$\pm$", "±") for row in cells[:-1]] == [r[2] for r in shown[:-1]]
    markdown = copied(opened, "Markdown").splitlines()
    assert len(markdown) == 10 and set(markdown[1]) <= set("|-: ")
    assert [line.strip("| ").split(" | ")[0] for line in markdown[2:]] == [r[0] for r in shown]


def test_what_a_format_would_misread_is_escaped(opened: Browser) -> None:
    table = (
        "(() => { const d = document.createElement('div'); d.innerHTML = `<table><thead><tr>"
        '<th>a_b</th><th>n</th></tr></thead><tbody><tr><td>5% & x|y, "q"</td>'
        "<td class=number>–</td></tr></tbody></table>`; return d.firstChild })()"
    )
    assert opened.run(f"FORMATS.CSV({table})") == 'a_b,n\n"5% & x|y, ""q""",\n'
    assert r"a\_b & n \\" in opened.run(f"FORMATS.LaTeX({table})")
    assert r'5\% \& x$|$y, "q" & -- \\' in opened.run(f"FORMATS.LaTeX({table})")
    assert r'| 5% & x\|y, "q" | – |' in opened.run(f"FORMATS.Markdown({table})")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_is_no_wider_than_the_screen(opened: Browser, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.call("Emulation.setDeviceMetricsOverride", **size)
    assert opened.run("document.documentElement.scrollWidth") <= width
    opened.call("Emulation.clearDeviceMetricsOverride")

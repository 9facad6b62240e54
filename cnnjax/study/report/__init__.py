"""The report: one self-contained HTML page from a study's directory, or from several.

    path = write(store, study, runs, results)                 # page and figures/
    text = render(gather([Source.read(a), Source.read(b)]))   # several studies, one page
    watch(lambda: read_all([store], ["mine"]), path)          # written anew as results arrive

No network: style, script and charts are inside the page, which opens from disk. `page.SECTIONS` is
what it holds; a new part is a function of the Evidence and a row there.
"""

from cnnjax.study.report.evidence import Evidence, Source, answer, gather
from cnnjax.study.report.findings import notes
from cnnjax.study.report.page import SECTIONS, render
from cnnjax.study.report.rerun import command as train_command
from cnnjax.study.report.watching import is_complete, read_all, watch
from cnnjax.study.report.writing import write, write_all, write_page

__all__ = [
    "SECTIONS",
    "Evidence",
    "Source",
    "answer",
    "gather",
    "is_complete",
    "notes",
    "read_all",
    "render",
    "train_command",
    "watch",
    "write",
    "write_all",
    "write_page",
]

"""What a study shows while it runs: a bar and the best arm on a terminal, a line a trial elsewhere.

    with showing(study, out) as progress:
        run_study(study, out, on_plan=progress.plan, on_event=progress.event)

Both say how many trials are done, running and failed, the time left and the best arm so far. Ctrl-C
and SIGTERM leave with a line that says how to go on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console, RenderableType
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from cnnjax.cli.tally import Tally, describe
from cnnjax.config import trial_id
from cnnjax.study.engines import signals
from cnnjax.study.engines.interface import Event
from cnnjax.study.grid import Study
from cnnjax.study.run import Plan


class Live(Bar):
    """A bar as long as the work, the counts beside it, the best arm below; drawn anew by itself."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self.tally = tally
        left = TextColumn("{task.fields[left]}")
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), left)
        super().__init__(*columns, console=console)
        self.task = self.add_task(tally.counts(), total=tally.work, left="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is drawn, as things stand now."""
        if self.tasks:
            tally, (task,) = self.tally, self.tasks
            task.description, task.completed = tally.counts(), tally.shown
            task.fields["left"] = tally.left()
            yield self.make_tasks_table(self.tasks)
            yield Text(tally.leader(), overflow="ellipsis", no_wrap=True)


@contextlib.contextmanager
def showing(study: Study, out: str, console: Console | None = None) -> Iterator[Progress]:
    """Show a study's events on stderr; an interrupt says what is kept in `out`."""
    progress = Progress(study, console or Console(stderr=True))
    try:
        with signals.interrupting(), contextlib.closing(progress):
            yield progress
    except KeyboardInterrupt:
        tally = progress.tally
        done = f"{tally.finished} of {tally.total}" if tally else "0 of 0"
        raise KeyboardInterrupt(
            f"{done} trials are done and kept in {out}; the same command goes on from there"
        ) from None


class Progress:
    """Shows a study's events on a console."""

    def __init__(self, study: Study, console: Console) -> None:
        self.study, self.console = study, console
        self.tally: Tally | None = None
        self.labels: dict[str, str] = {}
        self.live: Live | None = None

    def close(self) -> None:
        """Take the bar off a terminal."""
        if self.live is not None:
            self.live.stop()

    def plan(self, plan: Plan) -> None:
        """Take note of what is to do."""
        self.tally = tally = Tally(self.study, plan)
        self.labels = {trial_id(c): describe(c, self.study.axes) for c in plan.missing}
        if tally.finished:
            self.console.print(f"{tally.finished} of {tally.total} trials are done already")
        drawn = self.console.is_terminal and not self.console.is_dumb_terminal
        if drawn and plan.missing:
            self.live = Live(tally, self.console)
            self.live.start()

    def event(self, event: Event) -> None:
        """Show one event of the engine."""
        assert self.tally is not None, "events come after the plan"
        self.tally.take(event)
        if event.kind in ("started", "epoch"):
            return
        name = self.labels.get(event.trial_id, event.trial_id)
        line = f"{event.kind:7} {name}  {_outcome(event)}"
        self._say(line if self.live else f"{line}  [{self.tally.text()}]")

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)
        sys.stderr.flush()


def _outcome(event: Event) -> str:
    if event.kind == "done":
        metrics = event.body["metrics"]
        numbers = (f"{k}={metrics[k]:.3f}" for k in ("accuracy", "accuracy_away", "consistency"))
        return f"{' '.join(numbers)} ({event.body['seconds']:.0f} s)"
    return str(event.body["reason"] if event.kind == "failed" else event.body)

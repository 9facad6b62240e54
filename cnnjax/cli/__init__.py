"""The command line: `cnnjax VERB ...`, one module a verb.

    cnnjax study --pool=max,aps --stride=2 --seed=0,1,2
    raise SystemExit(main(["train", "--pool=max"]))

A verb's module has `main(words) -> exit status` and is imported only when it is called. A user's
mistake is one line on stderr and status 2; Ctrl-C is status 130. Where nobody reads on (`| head`) a
verb ends quietly with status 141, as programs do that SIGPIPE ends.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl.flags import Error as FlagError

from cnnjax import spec
from cnnjax.cli.statuses import CRASH, INTERRUPTED, MISTAKE, UNREAD
from cnnjax.train.memory import keep_freed

VERBS: Mapping[str, str] = {
    "study": "run a grid of trials and write its report",
    "train": "train and measure one configuration",
    "surgery": "give a trained network another pool, padding or head",
    "launch": "train in several processes, started again when one dies",
    "report": "write the tables and the report of a study again",
    "predict": "say what pictures show",
    "export": "write a trained network as ONNX or NumPy arrays",
    "data": "list, fetch and verify data sets",
    "cite": "print the BibTeX of pooling methods",
    "filters": "show an image through the classic convolution kernels",
    "certify": "say what shifts a network is exactly invariant to, and prove it",
    "bench": "measure speed beside stock Flax and PyTorch",
}


def entry_point() -> None:
    """Run the command line of this process; a study in two, of which this one has no JAX."""
    words = sys.argv[1:]
    if words[:1] != ["study"]:
        sys.exit(alone(words))
    from cnnjax.study.engines.driver import drive

    warnings.formatwarning = _as_a_line
    sys.exit(answer("study", lambda: drive(alone, words)))


def alone(words: Sequence[str]) -> int:
    """Run `cnnjax` with these words in a process that does nothing else; return the exit status."""
    warnings.formatwarning = _as_a_line
    sys.unraisablehook = _unless_late
    keep_freed()
    return main(words)


def main(words: Sequence[str]) -> int:
    """Run `cnnjax` with these words; return the exit status."""
    try:
        status = _run(words)
        sys.stdout.flush()  # here, where it can be seen that nobody reads on
        return status
    except BrokenPipeError as error:
        return UNREAD if _unread() else _fail(words[0], error, MISTAKE)
    except SystemExit as end:
        # Rich has taken care of a broken pipe itself, and would end with 1.
        if isinstance(end.__context__, BrokenPipeError):
            return UNREAD
        raise


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("help", "-h", "--help", "-help"):
        print(overview())
        return 0
    name, rest = words[0], list(words[1:])

    def run() -> int:
        spec.find(VERBS, name, "command")
        return importlib.import_module(f"cnnjax.cli.{name}").main(rest)

    return answer(name, run)


def answer(name: str, run: Callable[[], int]) -> int:
    """Run a command; an error becomes one line on stderr and an exit status."""
    try:
        return run()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as interrupt:
        complain(name, f"interrupted. {interrupt}".strip())
        return INTERRUPTED
    except (ValueError, TypeError, OSError, FlagError) as error:
        return _fail(name, error, MISTAKE)
    except Exception as error:
        return _fail(name, error, CRASH)


def overview() -> str:
    """Return the list of verbs."""
    lines = [f"  {verb:10}{text}" for verb, text in VERBS.items()]
    usage = "usage: cnnjax VERB [--help] ..."
    return "\n".join([usage, "", *lines])


def complain(verb: str, text: str) -> None:
    """Print one line on stderr."""
    print(f"cnnjax {verb}: {' '.join(text.split())}", file=sys.stderr)


def _as_a_line(message: Any, *_: Any, **__: Any) -> str:
    return f"cnnjax: {message}\n"  # no line of code


def _unless_late(event: Any) -> None:
    """Show an error that nobody can catch, but for the disk's answers to a save that has failed."""
    if str(event.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(event)


def _unread() -> bool:
    """Return whether nobody reads our output any more; what is printed from now on is dropped."""
    gone = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for stream in gone:
        # Python flushes once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(gone)


def _has_no_reader(stream: Any) -> bool:
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # a reader that has gone is told unasked
    except (OSError, ValueError, AttributeError):  # no file, as under a test
        return False
    return bool(poll.poll(0))


def _fail(verb: str, error: Exception, status: int) -> int:
    if os.environ.get("CNNJAX_TRACEBACK"):
        traceback.print_exc()
    kind = "" if status == MISTAKE else f"{type(error).__name__}: "
    complain(verb, f"{kind}{error}" or type(error).__name__)
    return status

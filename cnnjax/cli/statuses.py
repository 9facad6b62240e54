"""With what status a command ends; docs/training.md says what follows from each."""

from __future__ import annotations

FAILED = 1  # a trial did
MISTAKE = 2  # the user's, told in one line
LOST = 69  # EX_UNAVAILABLE: another process has died
CRASH = 70  # EX_SOFTWARE: a fault of ours, or a training that died too often
RESUMABLE = 75  # EX_TEMPFAIL: asked to stop; the same command goes on
INTERRUPTED = 130  # by Ctrl-C
UNREAD = 141  # by SIGPIPE: nobody reads on

# How all processes of one training fail, each by itself.
ALIKE = (FAILED, RESUMABLE)
# What running the same command again at once would not change.
FINAL = (*ALIKE, MISTAKE)

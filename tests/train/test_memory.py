"""What was freed is taken again: no page faults where the memory has been there before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from cnnjax.train.memory import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
def take():
    bytes(b"x" * (48 << 20))
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    words = [sys.executable, "-c", PROGRAM, how]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_taken_again() -> None:
    assert faults("kept") < 100
    assert faults("as it is") > 1000  # else this test would say nothing

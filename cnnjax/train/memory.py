"""Memory that a step has freed stays with the process, for the next step to take.

keep_freed()          # once, before threads start; `cnnjax` does so in every process of its own

XLA for CPU takes a program's temporary memory anew at every call. glibc gives pieces of that size
back to the system, and the system hands them out again page by page: of a step of the CNN 32-64-128
a fifth is that. The memory a process holds is then the most that it ever needed.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Of mallopt(3): how much may lie outside of the heap, what of the heap's end is given back (-1:
# nothing), how many heaps there are (those of other threads hold no more than 64 MiB).
M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX = -4, -1, -8


def keep_freed() -> bool:
    """Tell the C library to keep freed memory; return whether it was told (glibc alone).

    Where the environment has CNNJAX_MEMORY=system it is left as it is.
    """
    if not sys.platform.startswith("linux") or os.environ.get("CNNJAX_MEMORY") == "system":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    choices = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_ARENA_MAX: 1}
    return all(library.mallopt(name, value) for name, value in choices.items())

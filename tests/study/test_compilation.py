"""What is set before the first compilation of a process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc, weakref
import jax
from cnnjax.study.compilation import use_cache

class Node: pass

def garbage():
    node = Node()
    node.itself = node
    return weakref.ref(node)

use_cache()
frozen = gc.get_freeze_count()
assert frozen > 10_000, frozen
left = garbage()
use_cache()
gc.collect()
assert left() is None, "a second call kept the garbage between"
"""


def test_imports_are_set_aside_once() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)

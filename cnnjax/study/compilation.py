"""One persistent compile cache for all trials: a network compiled once serves every seed.

use_cache()        # before the first compilation
"""

from __future__ import annotations

import functools
import gc
import hashlib
import importlib.metadata
import os
from pathlib import Path

from cnnjax.environment import instructions, processor


def cache_directory() -> Path:
    """Return $CNNJAX_CACHE or the user's cache directory, one per jaxlib and processor.

    Compiled code is for one processor: a cache on a shared home must not mix two of them.
    """
    root = Path(os.environ.get("CNNJAX_CACHE") or Path.home() / ".cache" / "cnnjax")
    key = f"{importlib.metadata.version('jaxlib')} {processor()} {instructions()}"
    return root / "compiled" / hashlib.sha256(key.encode()).hexdigest()[:12]


def use_cache() -> None:
    """Make JAX keep and reuse every compilation, and Python not collect among the imports."""
    import jax

    _set_imports_aside()
    jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@functools.cache
def _set_imports_aside() -> None:
    # One collection of all that was imported takes a tenth of the first step's second. Once only:
    # a later trial's call would keep for ever what the trial before left behind.
    gc.freeze()

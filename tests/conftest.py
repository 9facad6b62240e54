"""What every test runs under: 8 CPU devices, strict rank promotion, real data only where it is.

Operators and layers promise equal bits, so their tests are compiled as users have them, and so are
the slow ones of training and invariance, which compute for long. All the rest is compiled with
little optimisation, in the processes it starts too: it compiles for longer than it computes.
"""

from __future__ import annotations

import os
from pathlib import Path

# Both are read when JAX starts its CPU backend, so they come before anything imports it.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

from cnnjax import compiling

jax.config.update("jax_numpy_rank_promotion", "raise")

# Parts of tests/: those compiled as users have them, and those of which the slow tests are.
AS_USERS_DO = ("ops", "layers", "test_compiling.py", "test_programs.py")
SLOW_AS_USERS_DO = ("train", "invariance")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile this test as users would, or soon; what was compiled otherwise is forgotten."""
    part = item.path.relative_to(Path(__file__).parent).parts[0]
    slow = item.get_closest_marker("slow") is not None
    little = part not in AS_USERS_DO and not (slow and part in SLOW_AS_USERS_DO)
    if little != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", little)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(little))
        jax.clear_caches()
        compiling._known.cache_clear()  # with little optimisation a program takes no options


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests on real data where CNNJAX_DATA does not say where it is."""
    if "CNNJAX_DATA" in os.environ:
        return
    shared = [item for item in items if "shared" in item.keywords]
    if shared:
        items[:] = [item for item in items if "shared" not in item.keywords]
        config.hook.pytest_deselected(items=shared)

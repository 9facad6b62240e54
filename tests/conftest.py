"""What every test runs under: 8 CPU devices, strict rank promotion, real data only where it is.

The fast tests alone (-m "not slow") are compiled with little optimisation, which is half their
time; any other selection, as CI's second one, is compiled as users have it.
"""

from __future__ import annotations

import os

# Both are read when JAX starts its CPU backend, so they come before anything imports it.
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Compile fast where the fast tests alone were asked for, in the processes they start too."""
    if config.option.markexpr == "not slow":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests on real data where CNNJAX_DATA does not say where it is."""
    if "CNNJAX_DATA" in os.environ:
        return
    shared = [item for item in items if "shared" in item.keywords]
    if shared:
        items[:] = [item for item in items if "shared" not in item.keywords]
        config.hook.pytest_deselected(items=shared)

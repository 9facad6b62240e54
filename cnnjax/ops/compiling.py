"""jit with fewer optimisations, for what is compiled for longer than it runs.

    create = quick_jit(create_state)                   # as fast afterwards, sooner compiled
    check = quick_jit(run, level=0)                    # several times slower afterwards

On CPU, XLA's LLVM spends most of a program's compilation on optimisations that a program run once
does not pay back: the initial values of a small network, 4.2 s at the default level 3, 0.6 s at 1.
Level 1 still vectorises; its values were the same bits. Only for programs that are not part of a
larger one: JAX refuses compiler options inside another jit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def quick_jit(function: Callable[..., Any], *, level: int = 1, **how: Any) -> Callable[..., Any]:
    """Return jax.jit(function, **how), compiled at XLA's optimisation level 0 or 1 on CPU.

    Accelerators' compilers take no such option, and are left as they are; so is a JAX that was told
    to optimise little anyway. The platform is asked for at the first call, not at import.
    """

    @functools.cache
    def compiled() -> Callable[..., Any]:
        if jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations"):
            return jax.jit(function, **how)
        options: Any = {"xla_backend_optimization_level": level}
        return jax.jit(function, compiler_options=options, **how)

    return lambda *args, **kwargs: compiled()(*args, **kwargs)

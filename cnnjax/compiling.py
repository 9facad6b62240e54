"""jit with other options than XLA's own for CPU, by how long the program runs.

    create = quick_jit(create_state)                   # as fast afterwards, sooner compiled
    check = quick_jit(run, level=0)                    # several times slower afterwards
    step = steady_jit(step, donate_argnums=0)          # up to a fifth faster afterwards

On CPU, XLA's LLVM spends most of a program's compilation on optimisations that a program run once
does not pay back: the initial values of a small network, 4.2 s at the default level 3, 0.6 s at 1.
Level 1 still vectorises; its values were the same bits. A program that runs for minutes wants what
XLA leaves off: whole AVX-512 registers, and copies of its donated state left out where nothing
reads the old one. Only for programs that are not part of a larger one: JAX refuses compiler options
inside another jit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax

STEADY = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_copy_insertion_use_region_analysis": True}


class Compiled:
    """jax.jit(function, **how) with options for CPU; the platform is asked for at the first call.

    Accelerators' compilers take no such options, and are left as they are; so is a JAX that was
    told to optimise little anyway. Options that this XLA may not know are tried before the first
    compilation, and left out where it does not.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        wanted: Callable[[], Mapping[str, Any]],
        *,
        try_them: bool = False,
        **how: Any,
    ) -> None:
        self._function, self._wanted, self._try_them, self.how = function, wanted, try_them, how

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._jitted(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Trace for these arguments, as jax.jit's own `lower` does."""
        return self._jitted.lower(*args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        """Trace for these arguments as jax.jit's own `trace` does, without the options."""
        return jax.jit(self._function, **self.how).trace(*args, **kwargs)

    @functools.cached_property
    def wanted(self) -> dict[str, Any]:
        """The options asked for on this platform, known to its compiler or not."""
        if jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations"):
            return {}
        return dict(self._wanted())

    @functools.cached_property
    def options(self) -> dict[str, Any]:
        """The options given to the compiler."""
        wanted = tuple(self.wanted.items())
        if not self._try_them or not wanted or _known(wanted):
            return self.wanted
        return dict(item for item in wanted if _known((item,)))

    @functools.cached_property
    def _jitted(self) -> Any:
        return jax.jit(self._function, compiler_options=self.options or None, **self.how)


def quick_jit(function: Callable[..., Any], *, level: int = 1, **how: Any) -> Compiled:
    """Return jax.jit(function, **how), compiled at XLA's optimisation level 0 or 1 on CPU."""
    return Compiled(function, lambda: {"xla_backend_optimization_level": level}, **how)


def steady_jit(function: Callable[..., Any], **how: Any) -> Compiled:
    """Return jax.jit(function, **how), compiled on CPU for what runs much longer than it compiles.

    The values are jax.jit's up to rounding. An option that XLA_FLAGS names is left as it is there.
    """
    return Compiled(function, _steady, try_them=True, **how)


def _steady() -> dict[str, Any]:
    flags = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in STEADY.items() if name not in flags}


@functools.cache
def _known(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether this XLA has the options: they come and go with its versions."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

"""What a parameter may be, said once in the signature that takes it: value -> value or an error.

    Reduce = Annotated[str, OneOf("mean", "sum")]
    def lp(x, *, p: Annotated[float, Number(above=0)] = 2.0, reduce: Reduce = "mean"): ...

    parameters(lp)["p"].check("p", -1.0)      # ValueError: p: expected a number > 0, got -1.0

Cards, error messages, the page of methods and the flags of a study are all read off these.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

REQUIRED = inspect.Parameter.empty


class Allowed(Protocol):
    """A set of values: `check` returns the value or raises; str() says it in words."""

    def check(self, argument: str, value: Any) -> Any: ...


@dataclass(frozen=True, init=False)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    def __str__(self) -> str:
        return (
            " or ".join(map(repr, self.values))
            if len(self.values) < 3
            else (f"one of {', '.join(map(repr, self.values))}")
        )

    def check(self, argument: str, value: Any) -> Any:
        kinds = {_kind(item) for item in self.values}
        if _kind(value) not in kinds:
            raise TypeError(f"{argument}: expected {self}, got {value!r}")
        if value not in self.values:
            raise ValueError(f"{argument}: expected {self}, got {value!r}")
        return self.values[self.values.index(value)]


@dataclass(frozen=True, kw_only=True)
class Number:
    """A real number (or, `whole`, an integer) between bounds; a traced scalar passes unread."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    whole: bool = False
    optional: bool = False

    def __str__(self) -> str:
        bounds = {">=": self.least, ">": self.above, "<=": self.most, "<": self.below}
        told = " and ".join(f"{sign} {b:g}" for sign, b in bounds.items() if math.isfinite(b))
        kind = "an int" if self.whole else "a number"
        return f"{kind} {told}".rstrip() + (" or None" if self.optional else "")

    def check(self, argument: str, value: Any) -> Any:
        if self.optional and value is None:
            return None
        if isinstance(value, jax.Array) and not self.whole:
            if value.ndim:
                raise ValueError(f"{argument}: expected {self}, got an array of {value.shape}")
            if not isinstance(value, jax.core.Tracer):
                self.check(argument, value.item())
            return value
        if isinstance(value, np.generic):
            value = value.item()
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise TypeError(f"{argument}: expected {self}, got {value!r}")
        inside = self.above < value < self.below and self.least <= value <= self.most
        if not inside or not math.isfinite(value):
            raise ValueError(f"{argument}: expected {self}, got {value!r}")
        return value


@dataclass(frozen=True)
class Parameter:
    """One keyword of a method: its default (REQUIRED where there is none) and what is allowed."""

    default: Any
    allowed: Allowed | None

    def check(self, argument: str, value: Any) -> Any:
        """Return the value; ValueError or TypeError where it is not allowed."""
        return value if self.allowed is None else self.allowed.check(argument, value)


def parameters(source: Callable[..., Any] | type) -> dict[str, Parameter]:
    """Return the keywords of a function (keyword-only ones) or of a dataclass (its fields)."""
    if isinstance(source, type):
        hints: dict[str, Any] = {}
        for base in reversed(source.__mro__):
            if base.__module__.startswith("cnnjax."):
                hints |= inspect.get_annotations(base, eval_str=True)
        defaults = {f.name: f.default for f in dataclasses.fields(source) if f.name in hints}
        missing: Any = dataclasses.MISSING
    else:
        hints = inspect.get_annotations(source, eval_str=True)
        keywords = inspect.signature(source).parameters.values()
        defaults = {p.name: p.default for p in keywords if p.kind is p.KEYWORD_ONLY}
        missing = REQUIRED
    return {
        name: Parameter(REQUIRED if default is missing else default, _allowed(hints[name]))
        for name, default in defaults.items()
    }


def _kind(value: Any) -> type:
    # True is an int and 2.0 a float to Python; here a truth value is neither, and 2.0 is 2.
    return float if type(value) is int else type(value)


def _allowed(hint: Any) -> Allowed | None:
    if hint is bool:
        return OneOf(True, False)
    return next(
        (item for item in getattr(hint, "__metadata__", ()) if hasattr(item, "check")), None
    )

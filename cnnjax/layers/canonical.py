"""canonical: any dense pool made exactly equivariant, x -> (y, choice).

    pool(x, "canonical", method="softpool", window=3, stride=2)
    pool(x, "canonical", method="lp", window=3, stride=2, inner_p=3)     # p itself is the norm's
    Pool("canonical", method="lip", window=2, stride=2)

The inner method is applied at every place of the circular map, which moves with every shift; of
that the polyphase component of largest norm is kept (APS, Chaman and Dokmanic 2021).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import jax

from cnnjax import spec
from cnnjax.layers import facts
from cnnjax.layers.card import PoolingMethod
from cnnjax.ops import allowed, polyphase
from cnnjax.ops.padding import Pair
from cnnjax.ops.polyphase import Choice, Circular, Norm


@dataclass(frozen=True)
class Dense:
    """The names of methods with a form at stride 1; the card itself checks the name."""

    def __str__(self) -> str:
        return "a method with a form at stride 1"

    def check(self, argument: str, value: Any) -> Any:
        """Return the name as it is."""
        return value


def canonical(
    x: jax.Array,
    *,
    inner: PoolingMethod,
    stride: Pair,
    padding: Circular = "CIRCULAR",
    method: Annotated[str, Dense()],
    p: Norm = 2,
    phase: jax.Array | None = None,
    **arguments: Any,
) -> tuple[jax.Array, Choice]:
    """Apply `inner`, the card of `method`, at every place; keep the component of largest norm.

    `arguments` are the inner method's; one that is also a name above goes by inner_NAME.
    """
    del method
    given = {"stride": stride} | ({"padding": padding} if "padding" in inner.takes else {})
    y = inner.dense(x, **given, **inner_arguments(arguments))
    return polyphase.select(y, y, stride=stride, p=p, phase=phase)


@dataclass(frozen=True, kw_only=True)
class CanonicalMethod(PoolingMethod):
    """The row of POOLS that takes another row, `method`, and that row's own arguments."""

    table: Mapping[str, PoolingMethod] = field(compare=False, repr=False)
    inner: PoolingMethod | None = None

    def given(self, params: Mapping[str, Any]) -> CanonicalMethod:
        """Return the card for one inner method, which knows what that one takes."""
        if "method" not in params:
            raise ValueError(f"method: pool 'canonical' needs one, got none; {self._able()}")
        inner = spec.find(self.table, params["method"], "method")
        if not inner.has_dense:
            raise ValueError(f"method: {inner.name!r} has no form at stride 1; {self._able()}")
        return dataclasses.replace(
            self,
            inner=inner,
            learnable=inner.learnable,
            stochastic=inner.stochastic,
            gain=_of_inner(inner.gain),
            channels=_of_inner(inner.channels),
            same_as=_same_as,
        )

    @cached_property
    def parameters(self) -> dict[str, allowed.Parameter]:
        own = {k: v for k, v in allowed.parameters(canonical).items() if k not in HIDDEN}
        if self.inner is None:
            return own
        inner = {k: v for k, v in self.inner.parameters.items() if k not in SHARED}
        return own | {_outer_name(k, own): v for k, v in inner.items()}

    def arguments(
        self,
        window: Any = None,
        stride: Any = None,
        padding: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        checked = super().arguments(window, stride, padding, params)
        return checked | {"inner": self.inner}

    def _able(self) -> str:
        return f"allowed: {', '.join(k for k, card in self.table.items() if card.has_dense)}"


HIDDEN = ("phase", "inner")
SHARED = ("stride", "padding")
PREFIX = "inner_"


def inner_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of canonical's arguments that are the inner method's, by its own names."""
    not_inner = ("inner", "method", "p", "padding")
    return {k.removeprefix(PREFIX): v for k, v in arguments.items() if k not in not_inner}


@functools.cache  # so that equal cards have equal facts
def _of_inner(fact: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    return lambda arguments: fact(inner_arguments(arguments))


def _outer_name(name: str, own: Mapping[str, Any]) -> str:
    return PREFIX + name if name in own else name


def _same_as(arguments: Mapping[str, Any]) -> str | None:
    inner: PoolingMethod = arguments["inner"]
    own = inner_arguments(arguments)
    simpler = inner.same_as(own)
    if arguments["stride"] == (1, 1):
        params = {k: v for k, v in own.items() if k not in ("window", "stride")}
        return simpler or spec.format(inner.name, params)
    if facts.IDENTITY in (inner.name, simpler) and inner.name not in WITH_STRIDE:
        return facts.aps_as(arguments)
    return None


# Their band or block is the stride's: at another stride they are other functions.
WITH_STRIDE = ("spectral", "flc", "space_to_depth", "haar")


def card(table: Mapping[str, PoolingMethod]) -> CanonicalMethod:
    """Build the row of POOLS over the rows that may be made canonical."""
    return CanonicalMethod(
        name="canonical",
        function=canonical,
        summary="any dense method with its own arguments (its p as inner_p), then the component of "
        "largest norm",
        formula="y = (method at stride 1)_k, k as in aps",
        cites=("chaman2021",),
        equivariance="P2",
        phased=True,
        has_dense=False,
        nan="leaves the phase of its map undefined",
        table=table,
    )

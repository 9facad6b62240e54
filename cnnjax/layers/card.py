"""PoolingMethod: what a method is, takes, claims and cites; its arguments -> one checked call.

    card = PoolingMethod(name="max", function=local.maximum, ...)
    card.takes, card.params                       # read off the function's signature
    card.arguments(window=3, stride=None)         # {"window": (3, 3), "stride": (3, 3), ...}
    card.dense(x, **arguments)                    # the stride-1 form

The claims of equivariance are codes (CLAIMS), for maps with circular padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from cnnjax import spec
from cnnjax.layers import module as modules
from cnnjax.ops import allowed
from cnnjax.ops import padding as pads

CLAIMS = {
    "P1": "moves with shifts by multiples of the stride; at stride 1 with every shift",
    "P2": "moves with every shift, by whole output pixels that the selected phase predicts",
    "P3": "moves with every shift, by fractions of an output pixel (a band-limited map)",
    "P5": "in training moves in distribution; in evaluation as P1",
    "P6": "none",
}
STRUCTURE = ("window", "stride", "padding")
Arguments = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PoolingMethod:
    """A row of POOLS.

    Exactly one of `function` (arrays in, arrays out; may be `phased`: returns (y, Choice)) and
    `layer` (a Linen module: parameters or randomness) is given.
    """

    name: str
    summary: str
    formula: str
    cites: tuple[str, ...]
    equivariance: str
    function: Any = None
    layer: Any = None
    phased: bool = False
    learnable: bool = False
    stochastic: bool = False
    # Gain on a positive constant map, from the arguments; None where it depends on parameters.
    gain: Callable[[Arguments], float | None] = lambda arguments: 1.0
    # Output channels over input channels, from the arguments.
    channels: Callable[[Arguments], int] = lambda arguments: 1
    # A global mean after it is blind to every shift, as its filter vanishes at the aliases (P4).
    last_stage_exact: Callable[[Arguments], bool] = lambda arguments: False
    # A simpler arm which is the same function for these arguments.
    same_as: Callable[[Arguments], str | None] = lambda arguments: None
    dense_function: Callable[..., jax.Array] | None = None
    has_dense: bool = True
    position: str = "after_activation"
    # What Pool(..., learn=True) trains and above which value it stays, or the layer that does.
    learns: str | None = None
    learns_above: float = -math.inf
    learned_layer: Any = None
    nan: str = "spreads to the windows that hold it"

    def given(self, params: Mapping[str, Any]) -> PoolingMethod:
        """Return the card that these parameters make of it; only canonical's changes."""
        del params
        return self

    @cached_property
    def parameters(self) -> dict[str, allowed.Parameter]:
        """Every keyword with its default and allowed values, window, stride, padding included."""
        found = allowed.parameters(self.function or self.layer)
        hidden = ("phase",) if self.layer is None else ("method", "parent", "name")
        return {k: v for k, v in found.items() if k not in hidden}

    @property
    def takes(self) -> tuple[str, ...]:
        """Which of window, stride and padding the method takes."""
        return tuple(name for name in STRUCTURE if name in self.parameters)

    @property
    def params(self) -> dict[str, Any]:
        """The method's own parameters with their defaults."""
        own = {k: v.default for k, v in self.parameters.items() if k not in STRUCTURE}
        return {k: None if v is allowed.REQUIRED else v for k, v in own.items()}

    @property
    def paddings(self) -> tuple[str, ...]:
        """The named padding rules that the method takes."""
        if "padding" not in self.parameters:
            return ()
        bound = self.parameters["padding"].allowed
        return bound.values if isinstance(bound, allowed.OneOf) else pads.PADDINGS

    def arguments(
        self,
        window: Any = None,
        stride: Any = None,
        padding: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Check and complete the arguments of one call; an error names the wrong one.

        One of window and stride stands for both where the method takes both.
        """
        given = {"window": window, "stride": stride, "padding": padding}
        for name, value in given.items():
            if value is not None and name not in self.takes:
                raise ValueError(
                    f"{name}: pool {self.name!r} takes none, got {value!r}; "
                    f"allowed: {self._words()}"
                )
        if "window" in self.takes:
            given["window"] = stride if window is None else window
            given["stride"] = window if stride is None else stride
        result = {name: self._structure(name, given[name]) for name in self.takes}
        return result | self.check(params or {})

    def check(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check the method's own parameters; those not given keep their defaults."""
        own = {k: v for k, v in self.parameters.items() if k not in STRUCTURE}
        for name in params:
            if name not in own:
                raise ValueError(
                    f"{name}: unknown parameter of pool {self.name!r}; allowed: {self._words()}"
                )
        return {name: own[name].check(name, value) for name, value in params.items()}

    def dense(self, x: jax.Array, **arguments: Any) -> jax.Array:
        """Pool at every place; only parameter-free methods that have such a form."""
        if self.dense_function is not None:
            return self.dense_function(x, **arguments)
        if self.function is None or not self.has_dense:
            raise ValueError(f"pool: {self.name!r} has no dense form as a function of arrays")
        modules.refuse_same(arguments.get("padding"), arguments["stride"])
        return self.function(x, **{**arguments, "stride": (1, 1)})

    def _structure(self, name: str, value: Any) -> Any:
        if name == "padding":
            value = self.parameters[name].default if value is None else value
            if isinstance(value, str):
                spec.find(dict.fromkeys(pads.PADDINGS), value, "padding")
                return self.parameters[name].check(name, value)
            return self.parameters[name].check(name, pads.amounts((1, 1), (1, 1), (1, 1), value))
        if value is None:
            raise ValueError(
                f"{name}: pool {self.name!r} needs one, got None; "
                "allowed: an int >= 1 or two of them"
            )
        return pads.pair(value, name)

    def _words(self) -> str:
        own = [*self.parameters, *(["learn"] if self.learns else [])]
        return ", ".join(own)

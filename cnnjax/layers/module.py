"""What every pooling module is: x (..., H, W, C) -> (..., H', W', C), called alike for all methods.

    y = module(x, train=False, temperature=None)
    y = module.dense(x)          # the stride-1 form; its samples at 0, s, 2s, ... are module(x)

`method`, `window`, `stride` and `padding` can be read off every module; `window` is None where the
method takes none, `dense` is None where there is no such form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from cnnjax.ops import padding as pads
from cnnjax.ops.padding import Padding, Pair

RNG = "pool"


class Pooling(nn.Module, kw_only=True):
    """Base of the methods with parameters or randomness; a subclass writes `pooled`."""

    method: str
    stride: Pair
    padding: Padding = "VALID"

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        x = pads.feature_map(x)
        return self.pooled(x, stride=self.stride, train=train, temperature=temperature)

    def dense(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        """Pool at every place."""
        refuse_same(self.padding, self.stride)
        x = pads.feature_map(x)
        return self.pooled(x, stride=(1, 1), train=train, temperature=temperature)

    def pooled(self, x: jax.Array, *, stride: Pair, train: bool, temperature: Any) -> jax.Array:
        raise NotImplementedError(f"{type(self).__name__} must define pooled")


class WindowPooling(Pooling, kw_only=True):
    """Base of those with a window."""

    window: Pair

    def over(self, stride: Pair) -> dict[str, Any]:
        """Return the arguments of a function of windows, at `stride`."""
        return {"window": self.window, "stride": stride, "padding": self.padding}


class FixedPool(nn.Module, kw_only=True):
    """A parameter-free method: a function of arrays and its arguments."""

    method: str
    function: Callable[..., jax.Array]
    dense_function: Callable[..., jax.Array]
    arguments: Mapping[str, Any]

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        del train, temperature
        return self.function(pads.feature_map(x), **self.arguments)

    def dense(self, x: jax.Array, *, train: bool = False, temperature: Any = None) -> jax.Array:
        """Pool at every place."""
        del train, temperature
        refuse_same(self.padding, self.stride)
        return self.dense_function(pads.feature_map(x), **self.arguments)

    @property
    def window(self) -> Pair | None:
        return self.arguments.get("window")

    @property
    def stride(self) -> Pair:
        return self.arguments["stride"]

    @property
    def padding(self) -> Padding | None:
        return self.arguments.get("padding")


class PolyphasePool(nn.Module, kw_only=True):
    """A parameter-free sampler that follows the content; sows its phase and its count of ties."""

    method: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    dense = None

    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        temperature: Any = None,
        phase: jax.Array | None = None,
        return_phase: bool = False,
    ) -> Any:
        """Return y, or (y, phase) with `return_phase`; a `phase` given is used as it is."""
        del train, temperature
        y, choice = self.function(pads.feature_map(x), phase=phase, **self.arguments)
        self.sow("intermediates", "phase", choice.phase)
        self.sow("intermediates", "ties", choice.ties)
        return (y, choice.phase) if return_phase else y

    @property
    def window(self) -> Pair | None:
        return self.arguments.get("window")

    @property
    def stride(self) -> Pair:
        return self.arguments["stride"]

    @property
    def padding(self) -> Padding:
        return self.arguments["padding"]


def random_key(module: Any) -> jax.Array:
    """Return a key of the rng collection "pool"; ValueError where the caller gave none."""
    if not module.has_rng(RNG) and not module.is_initializing():
        raise ValueError(
            f"rngs: pool {module.method!r} is random in training, "
            f"expected rngs={{'{RNG}': key}}, got none"
        )
    return module.make_rng(RNG)


def refuse_same(padding: Padding | None, stride: Pair) -> None:
    """Raise where SAME would make the dense form another function: its phase depends on s."""
    if padding == "SAME" and stride != (1, 1):
        raise ValueError(
            f"padding: 'SAME' at stride {stride} has no stride-1 form, its sampling phase depends "
            "on the size; use ZEROS, CIRCULAR, REFLECT or EDGE"
        )

"""Logits of moved images: images (N, H, W, C) and K shifts -> (N, K, classes).

    logits = shift_logits(apply, x)                                  # all H*W circular shifts
    logits = shift_logits(apply, x, shifts=4, boundary="zeros")      # 81 shifts, zeros come in
    logits = shift_logits(net.apply, x, variables=variables)         # one compilation, any weights

One compiled function takes a fixed number of (image, shift) pairs; the host loops over them, since
convolutions inside `lax.map` are slow on CPU. Moving happens inside, so the moved images never
exist all at once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from cnnjax.compiling import quick_jit
from cnnjax.ops import shifts as moves
from cnnjax.ops.windows import wide

Apply = Callable[..., Any]

MEMORY = 1 << 30
SAME_ROW = 1e-2


class OfNet:
    """A function of a net; equal for equal nets, so that they share a compilation.

    A net that cannot be hashed, one with a list among its fields, equals itself alone.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        try:
            self._hash, self._alone = hash((type(self), net)), False
        except TypeError:
            self._hash, self._alone = id(net), True

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, OfNet):
            return False
        alone = self._alone or other._alone
        return self.net is other.net if alone else bool(self.net == other.net)


class InEvaluation(OfNet):
    """net as (variables, images) -> logits, told by the names of its arguments not to train."""

    def __call__(self, variables: Any, x: jax.Array) -> Any:
        with one_line_errors():
            apply: Any = self.net.apply
            return apply(variables, x, **told(self.net))


# What a net may call the argument that says whether it trains, and its value where it does not.
TOLD: Mapping[str, bool] = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}


def told(net: nn.Module) -> dict[str, bool]:
    """Return the keywords that put a call of net in evaluation; none where it takes none."""
    own = inspect.signature(type(net).__call__).parameters
    return {key: value for key, value in TOLD.items() if key in own}


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn Flax's errors, which speak of scopes, into a ValueError of one line."""
    try:
        yield
    except flax.errors.ModifyScopeVariableError as error:
        raise ValueError(
            "net: writes its variables in evaluation (batch norm in training mode?); "
            "allowed: a net that only reads them there"
        ) from error
    except flax.errors.InvalidRngError as error:
        raise ValueError(
            "net: draws random numbers in evaluation (dropout left on?); allowed: none there"
        ) from error
    except flax.errors.FlaxError as error:
        raise ValueError(f"net: {str(error).splitlines()[0].split(' (https')[0]}") from error


def vectors(found: Any, where: str = "apply") -> Any:
    """Return logits as they are; ValueError unless an array (batch, classes)."""
    if not hasattr(found, "ndim"):
        kind = f"a {type(found).__name__}"
        kind += f" of {len(found)}" if hasattr(found, "__len__") else ""
        raise ValueError(f"{where}: expected logits (batch, classes), got {kind}")
    if found.ndim != 2:
        raise ValueError(f"{where}: expected logits (batch, classes), got shape {found.shape}")
    return found


def shift_logits(
    apply: Apply,
    x: Any,
    shifts: Any = "all",
    boundary: str = "circular",
    *,
    variables: Any = None,
    memory: int = MEMORY,
    batch_size: int = 256,
    check: bool = True,
    quick: bool = False,
) -> np.ndarray:
    """Return the logits (N, K, classes), float32 or wider, of x (N, H, W, C) under K shifts.

    `apply` maps images (B, H', W', C) to logits (B, classes) in evaluation mode; with `variables`
    it is called apply(variables, images) and pays one compilation for all weights. `shifts` is
    "all", a radius in pixels, or offsets (K, 2); "all" means every circular shift, or every offset
    within the margin of crop and canvas. `boundary` is a family of `ops.shifts`.

    `memory` bounds, in bytes, the result plus one compiled chunk, whose need is taken as the sum of
    all its intermediate arrays; at most `batch_size` moved images run at a time. Raises ValueError
    where even one image does not fit, for NaN logits, and for a function whose answer depends on
    the other images of the batch or changes from call to call (`check=False` saves that one chunk).
    `quick` compiles with few optimisations, where there are so few images that it takes longest.
    """
    x = images(x)
    offsets = moves.check(_offsets(shifts, x.shape[1:3], boundary), boundary)
    moves.moved_size(x.shape[1:3], boundary)
    call, variables = _callable(apply, variables)
    one = functools.partial(_chunk, call, boundary)
    rows = rows_that_fit(one, variables, x, offsets, memory=memory, most=batch_size)
    if quick:
        one = functools.partial(_quick_chunk, call, boundary)
    parts = list(_loop(one, variables, x, offsets, rows))
    logits = np.concatenate(parts)[: len(x) * len(offsets)]
    if check:
        _check_rows(one, variables, x, offsets, rows, logits[0])
    return finite(logits.reshape(len(x), len(offsets), -1), offsets)


def images(x: Any) -> jax.Array:
    """Return x as an array (N, H, W, C) with N > 0; ValueError for another shape."""
    x = jnp.asarray(x)
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"x: expected images (N, H, W, C), none of them 0, got shape {x.shape}")
    return x


def finite(logits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return logits (N, K, classes) unchanged; ValueError naming the first that is not finite."""
    bad = ~np.isfinite(logits).all(axis=-1)
    if bad.any():
        image, shift = np.argwhere(bad)[0]
        raise ValueError(
            f"logits: not finite for image {image} at shift {offsets[shift].tolist()} "
            f"({bad.sum()} of {bad.size} in all); allowed: finite logits"
        )
    return logits


def rows_that_fit(
    chunk: Callable[..., jax.Array],
    variables: Any,
    x: jax.Array,
    offsets: np.ndarray,
    *,
    memory: int,
    most: int,
) -> int:
    """Return how many (image, shift) pairs a chunk may hold; ValueError if not even one fits."""
    if most < 1:
        raise ValueError(f"batch_size: expected an int >= 1, got {most}")
    found, row = traced(chunk, variables, x, *_first(offsets, 1))
    total = len(x) * len(offsets)
    result = found.dtype.itemsize * total * found.shape[1]
    return within_memory(memory, result=result, row=row, most=min(most, total))


def within_memory(memory: int, *, result: int, row: int, most: int) -> int:
    """Return how many rows of `row` bytes fit beside `result` bytes, at most `most`."""
    rows = min(most, (memory - result) // max(row, 1))
    if rows < 1:
        raise ValueError(
            f"memory: the result needs {result} bytes and one row {row}, the bound is {memory}; "
            "give fewer images a call, or raise the bound"
        )
    return rows


def traced(call: Callable[..., jax.Array], *args: Any) -> tuple[jax.ShapeDtypeStruct, int]:
    """Return what call(*args) gives and the bytes of all it makes on its way, none of them freed.

    Nothing is computed; arguments may be shapes.
    """
    program, found = jax.make_jaxpr(call, return_shape=True)(*args)
    return found, _bytes(program.jaxpr)


def _offsets(shifts: Any, size: tuple[int, int], boundary: str) -> Any:
    card, params = moves.find(boundary)
    if isinstance(shifts, str) and shifts == "all":
        if "margin" in params:
            return moves.grid(params["margin"])
        if boundary in ("circular", "fourier"):
            return moves.all_offsets(size)
        raise ValueError(f"shifts: 'all' is endless for {boundary!r}; give a radius or offsets")
    if isinstance(shifts, str):
        raise ValueError(f"shifts: expected 'all', a radius or offsets (K, 2), got {shifts!r}")
    if np.ndim(shifts) == 0 and card.axes:
        return moves.grid(shifts)
    return shifts


def _callable(apply: Apply, variables: Any) -> tuple[Apply, Any]:
    if not callable(apply):
        raise TypeError(f"apply: expected a function images -> logits, got {apply!r}")
    if variables is not None:
        return apply, variables
    try:
        return _Alone(apply), {}
    except TypeError:
        return lambda _, batch: apply(batch), {}


class _Alone:
    # Equal for equal functions, so that calling again with the same one compiles nothing.
    def __init__(self, apply: Apply) -> None:
        self.apply, self.hash = apply, hash(apply)

    def __call__(self, _: Any, batch: jax.Array) -> jax.Array:
        return self.apply(batch)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alone) and self.apply == other.apply


def _logits_of_moved(
    call: Apply, boundary: str, variables: Any, x: jax.Array, index: jax.Array, offsets: jax.Array
) -> jax.Array:
    moved = moves.move(x[index], offsets, boundary)
    return wide(vectors(call(variables, moved)))


_chunk = jax.jit(_logits_of_moved, static_argnums=(0, 1))
_quick_chunk = quick_jit(_logits_of_moved, level=0, static_argnums=(0, 1))


def _loop(
    chunk: Callable[..., jax.Array], variables: Any, x: jax.Array, offsets: np.ndarray, rows: int
) -> Iterator[np.ndarray]:
    total = len(x) * len(offsets)
    for first in range(0, math.ceil(total / rows) * rows, rows):
        pairs = np.minimum(np.arange(first, first + rows), total - 1)
        image, shift = np.divmod(pairs, len(offsets))
        yield np.asarray(chunk(variables, x, image, offsets[shift]))


def _check_rows(
    chunk: Callable[..., jax.Array],
    variables: Any,
    x: jax.Array,
    offsets: np.ndarray,
    rows: int,
    first: np.ndarray,
) -> None:
    # A batch of copies of one moved image: every row must say what that image said among others.
    copies = np.asarray(chunk(variables, x, *_first(offsets, rows)))
    scale = max(1.0, float(np.abs(first).max()))
    with np.errstate(invalid="ignore"):  # what is not finite is named where the rows are used
        worst = float(np.abs(copies - first).max())
    if worst > SAME_ROW * scale:
        raise ValueError(
            f"apply: the same image gives logits {worst:.3g} apart in different batches; allowed: "
            "evaluation mode (no batch norm or dropout in training mode), no hidden randomness"
        )


def _first(offsets: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(rows, int), np.repeat(offsets[:1], rows, axis=0)


def _bytes(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [_bytes(sub) for sub in core.jaxprs_in_params(equation.params)]
        own = sum(v.aval.size * v.aval.dtype.itemsize for v in equation.outvars)
        total += max([own, *inner])
    return total

"""All H*W circular shifts at the price of one dense pass: net, images -> (N, H*W, classes).

    logits = exhaustive_logits(net, variables, x)     # row r is roll(x, divmod(r, W))
    result = exhaustive(net, variables, x)            # the same with the route taken, and why

A stride-s pool sees s*s phases of its input, one of which it keeps. Here every pool and every
convolution with a stride gives way to its stride-1 form, and all its phases move into the batch;
what comes after runs as it is. A circular net of total stride S with a head that is blind to place
then has its S*S distinct logits, which are all there are. Sites that select their phase by content
(aps, lps, canonical) run as they are: their answer stands for all shifts.

| route | when |
|---|---|
| dense | every stride has a stride-1 form, all padding is circular |
| one pass | the strides select their phase: one logit vector stands for all shifts |
| loop | anything else: every shift is rolled and run |

The first two are always proved on a sample before they are believed: an image of x and one of
shuffled pixels, rolled and run; where these disagree the loop decides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance import logits as moved
from cnnjax.layers.pooling import POOLS
from cnnjax.ops import padding as pads
from cnnjax.ops import shifts as moves
from cnnjax.ops.windows import wide

AGREE = 1e-4
Size = tuple[int, int]


class Exhaustive(NamedTuple):
    """Logits (N, H*W, classes), how they came about, and the lattice of distinct ones."""

    logits: np.ndarray
    route: str
    reason: str
    distinct: Size


def exhaustive_logits(
    net: nn.Module, variables: Any, x: Any, *, memory: int = moved.MEMORY, batch_size: int = 256
) -> np.ndarray:
    """Return the logits (N, H*W, classes) of x (N, H, W, C) at all circular shifts.

    Row-major: row r belongs to roll(x, divmod(r, W)). Equal to rolling and running every shift, bit
    for bit where the net's arithmetic is exact, else to rounding; float32 or wider. `net` is called
    net.apply(variables, x, train=False); memory, batch_size and errors as in `shift_logits`.
    """
    return exhaustive(net, variables, x, memory=memory, batch_size=batch_size).logits


def exhaustive(
    net: nn.Module, variables: Any, x: Any, *, memory: int = moved.MEMORY, batch_size: int = 256
) -> Exhaustive:
    """Return `exhaustive_logits` with the route ("dense", "one pass" or "loop") and its reason."""
    x = moved.images(x)
    size = pads.spatial_size(x)
    try:
        lattice, selects = plan(net, variables, x.shape)
        # The image of shuffled pixels goes through with the others: one compilation for both.
        tried = jnp.concatenate([x, _shuffled(x)])
        phases = _dense_logits(net, variables, tried, lattice, memory=memory, batch_size=batch_size)
        prove(net, variables, tried[np.array([0, -1])], phases[:, :, [0, -1]], memory=memory)
        phases = phases[:, :, :-1]
    except NotDense as refusal:
        call = moved.InEvaluation(net)
        found = moved.shift_logits(
            call, x, variables=variables, memory=memory, batch_size=batch_size
        )
        return Exhaustive(found, "loop", str(refusal), size)
    route = "one pass" if selects and lattice == (1, 1) else "dense"
    found = moved.finite(_all_shifts(phases, size), moves.all_offsets(size))
    return Exhaustive(found, route, "agrees with rolling on a sample", lattice)


def plan(net: nn.Module, variables: Any, shape: tuple[int, ...]) -> tuple[Size, bool]:
    """Return the lattice of phases that a dense pass visits and whether any site selects.

    Nothing is computed. Raises NotDense where a site has no stride-1 form or is not circular.
    """
    phases = Phases()
    image = jax.ShapeDtypeStruct((1, *shape[1:]), jnp.float32)
    jax.eval_shape(functools.partial(_dense_pass, net, phases), variables, image)
    return phases.lattice, phases.selects


def has_dense_pass(net: nn.Module, variables: Any, shape: tuple[int, ...]) -> bool:
    """Return whether images (N, H, W, C) of this shape take the "dense" or "one pass" route."""
    try:
        plan(net, variables, shape)
    except NotDense:
        return False
    return True


class NotDense(Exception):
    """Why a net has no dense pass."""


@dataclass
class Phases:
    """The interceptor: pools and convolutions with a stride run dense, phases into the batch.

    The batch is ordered (row phase, column phase, image); `seen` knows which lattice of phases the
    maps of a given shape carry, so that two branches of a block are treated alike.
    """

    lattice: Size = (1, 1)
    selects: bool = False
    seen: dict[tuple[int, ...], Size] = field(default_factory=dict)

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or not args or np.ndim(args[0]) != 4:
            return call(*args, **kwargs)
        if not self.seen:
            self.seen[args[0].shape[:3]] = (1, 1)
        if is_pool(module):
            return self.pool(call, args, kwargs, module)
        if is_conv(module):
            return self.convolve(call, args, kwargs, module)
        return call(*args, **kwargs)

    def pool(self, call: Callable[..., Any], args: Any, kwargs: Any, module: Any) -> Any:
        x = args[0]
        if POOLS[module.method].equivariance == "P2":
            y = call(*args, **kwargs)
            self.selects = True
            self.note((y[0] if isinstance(y, tuple) else y).shape, self.lattice_of(x, module))
            return y
        if module.padding not in (None, "CIRCULAR", "VALID"):
            raise NotDense(f"{name(module)}: padding {module.padding!r} is not circular")
        if module.dense is None:
            raise NotDense(f"{name(module)}: pool {module.method!r} has no stride-1 form")
        return self.split(module.dense(_wrapped(x, module), **kwargs), x, module.stride, module)

    def convolve(self, call: Callable[..., Any], args: Any, kwargs: Any, module: Any) -> Any:
        window, stride = pair(module.kernel_size), pair(module.strides)
        if module.padding != "CIRCULAR" and window != (1, 1):
            raise NotDense(f"{name(module)}: padding {module.padding!r} is not circular")
        if stride == (1, 1):
            return call(*args, **kwargs)
        dense = module.clone(strides=(1, 1), parent=None, name=None)
        y = dense.apply(module.variables, *args, **kwargs)
        return self.split(y, args[0], stride, module)

    def split(self, y: jax.Array, x: jax.Array, stride: Size, module: Any) -> jax.Array:
        """Move the phases of the dense map y into the batch."""
        rows, columns = self.lattice_of(x, module)
        (down, across), (height, width) = stride, y.shape[1:3]
        if y.shape[1:3] != x.shape[1:3] or height % down or width % across:
            raise NotDense(
                f"{name(module)}: stride {stride} does not divide the map {x.shape[1:3]}"
            )
        if stride == (1, 1):
            return y
        if self.selects:
            raise NotDense(f"{name(module)}: a plain stride after one that selects its phase")
        y = y.reshape(rows, columns, -1, height // down, down, width // across, across, y.shape[-1])
        y = y.transpose(4, 0, 6, 1, 2, 3, 5, 7)
        y = y.reshape(-1, height // down, width // across, y.shape[-1])
        self.note(y.shape, (rows * down, columns * across))
        return y

    def lattice_of(self, x: jax.Array, module: Any) -> Size:
        if x.shape[:3] not in self.seen:
            raise NotDense(f"{name(module)}: the map {x.shape[1:3]} comes from an unknown stride")
        return self.seen[x.shape[:3]]

    def note(self, shape: tuple[int, ...], lattice: Size) -> None:
        if self.seen.setdefault(shape[:3], lattice) != lattice:
            raise NotDense(f"two maps of shape {shape[:3]} stand for different phases")
        self.lattice = max(self.lattice, lattice)


def prove(
    net: nn.Module, variables: Any, sample: jax.Array, phases: np.ndarray, *, memory: int
) -> None:
    """Raise NotDense unless the phases of `sample` (n, H, W, C) are what rolling it gives."""
    size = pads.spatial_size(sample)
    drawn = np.random.default_rng(0).integers(0, size, (5, 2))
    offsets = np.concatenate([[(0, 0), (1, 0), (0, 1)], drawn])
    call = moved.InEvaluation(net)
    rolled = moved.shift_logits(call, sample, offsets, variables=variables, memory=memory)
    found = _all_shifts(phases, size)[:, offsets[:, 0] * size[1] + offsets[:, 1]]
    worst = float(np.abs(found - rolled).max())
    if not worst <= AGREE * max(1.0, float(np.abs(rolled).max())):
        raise NotDense(f"rolling disagrees with the dense pass by {worst:.3g} on a sample")


def _shuffled(x: jax.Array) -> jax.Array:
    """Return one image (1, H, W, C) of pixels of x in random places: no two phases alike."""
    pixels = np.asarray(x[:64]).reshape(-1, x.shape[-1])
    drawn = np.random.default_rng(0).permutation(pixels)[: x.shape[1] * x.shape[2]]
    return jnp.asarray(drawn.reshape(x[:1].shape))


def is_pool(module: Any) -> bool:
    """True for the modules of `cnnjax.Pool`."""
    return getattr(module, "method", None) in POOLS and hasattr(module, "dense")


def is_conv(module: Any) -> bool:
    """True for flax.linen.Conv and for modules with its fields."""
    fields = ("kernel_size", "strides", "padding", "features")
    return all(hasattr(module, name) for name in fields)


def pair(value: Any) -> Size:
    """Return a module's kernel size or strides as (rows, columns); None means 1."""
    if value is None:
        return (1, 1)
    return pads.pair(tuple(value) if np.ndim(value) else value, "strides")


def name(module: nn.Module) -> str:
    """Return where a module stands in its net."""
    return "/".join(module.path) or type(module).__name__


def _dense_pass(net: nn.Module, phases: Phases, variables: Any, x: jax.Array) -> Any:
    with nn.intercept_methods(phases):
        return moved.InEvaluation(net)(variables, x)


@functools.partial(jax.jit, static_argnums=0)
def _run(net: nn.Module, variables: Any, x: jax.Array) -> jax.Array:
    return wide(_dense_pass(net, Phases(), variables, x))


def _dense_logits(
    net: nn.Module, variables: Any, x: jax.Array, lattice: Size, *, memory: int, batch_size: int
) -> np.ndarray:
    """Return (row phases, column phases, N, classes)."""
    distinct = lattice[0] * lattice[1]
    call = functools.partial(_run, net, variables)
    one = jax.eval_shape(call, x[:1])
    shape = one.shape
    if len(shape) != 2 or shape[0] != distinct:
        raise NotDense(f"expected {distinct} rows of logits from one image, got shape {shape}")
    result = one.dtype.itemsize * len(x) * x.shape[1] * x.shape[2] * shape[1]
    most = min(len(x), max(1, batch_size // distinct))
    row = moved.row_bytes(functools.partial(call, x[:1]))
    rows = moved.within_memory(memory, result=result, row=row, most=most)
    parts = []
    for first in range(0, len(x), rows):
        index = np.minimum(np.arange(first, first + rows), len(x) - 1)
        parts.append(np.asarray(call(x[index])).reshape(*lattice, rows, -1))
    return np.concatenate(parts, axis=2)[:, :, : len(x)]


def _all_shifts(phases: np.ndarray, size: Size) -> np.ndarray:
    # Keeping phase p is what shifting the input by -p does.
    rows, columns = (-moves.all_offsets(size) % np.asarray(phases.shape[:2])).T
    return phases[rows, columns].transpose(1, 0, 2)


def _wrapped(x: jax.Array, module: Any) -> jax.Array:
    """Extend x so that a VALID pool, made dense, is as large as x; NotDense where it sees less."""
    if module.padding != "VALID":
        return x
    dense = jax.eval_shape(lambda y: module.clone(parent=None, name=None).dense(y), x)
    lost = [before - after for before, after in zip(x.shape[1:3], dense.shape[1:3], strict=True)]
    if any(more >= stride for more, stride in zip(lost, module.stride, strict=True) if more):
        raise NotDense(f"{name(module)}: VALID windows overlap, so the border is left out")
    return jnp.pad(x, ((0, 0), (0, lost[0]), (0, lost[1]), (0, 0)), mode="wrap")

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
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from cnnjax.compiling import quick_jit
from cnnjax.invariance import logits as moved
from cnnjax.invariance import sites
from cnnjax.invariance.sites import Site, Size
from cnnjax.layers.pooling import POOLS
from cnnjax.ops import heads
from cnnjax.ops import padding as pads
from cnnjax.ops import shifts as moves
from cnnjax.ops.windows import wide

AGREE = 1e-4


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
    for bit where the net's arithmetic is exact, else to rounding; float32 or wider. `net` is told
    not to train by whatever name it has for that; memory, batch_size and errors as in
    `shift_logits`.
    """
    return exhaustive(net, variables, x, memory=memory, batch_size=batch_size).logits


def exhaustive(
    net: nn.Module, variables: Any, x: Any, *, memory: int = moved.MEMORY, batch_size: int = 256
) -> Exhaustive:
    """Return `exhaustive_logits` with the route ("dense", "one pass" or "loop") and its reason."""
    try:
        return dense(net, variables, x, memory=memory, batch_size=batch_size)
    except NotDense as refusal:
        x = moved.images(x)
        call = moved.InEvaluation(net)
        found = moved.shift_logits(
            call, x, variables=variables, memory=memory, batch_size=batch_size
        )
        return Exhaustive(found, "loop", str(refusal), pads.spatial_size(x))


def dense(
    net: nn.Module, variables: Any, x: Any, *, memory: int = moved.MEMORY, batch_size: int = 256
) -> Exhaustive:
    """Return `exhaustive` by its dense pass; raises NotDense, with why, where it would loop."""
    # NumPy's: every way of picking images would be a program of its own to compile.
    x = np.asarray(moved.images(x))
    size = pads.spatial_size(x)
    planned = plan(net, variables, x.shape)
    # The image of shuffled pixels goes through with the others: one compilation for both.
    tried = np.concatenate([x, _shuffled(x)])
    phases = _dense_logits(net, variables, tried, planned, memory=memory, batch_size=batch_size)
    prove(net, variables, tried[[0, -1]], phases[:, :, [0, -1]], memory=memory)
    route = "one pass" if planned.selects and planned.lattice == (1, 1) else "dense"
    found = moved.finite(_all_shifts(phases[:, :, :-1], size), moves.all_offsets(size))
    return Exhaustive(found, route, "agrees with rolling on a sample", planned.lattice)


class Plan(NamedTuple):
    """What a dense pass will do: the lattice of phases it visits, whether any site selects.

    `image_bytes` is the size of all its intermediate arrays for one image, `phase_bytes` that of
    the logits of one phase.
    """

    lattice: Size
    selects: bool
    image_bytes: int
    phase_bytes: int


def plan(net: nn.Module, variables: Any, shape: tuple[int, ...]) -> Plan:
    """Return what a dense pass of net over images of that shape will do; nothing is computed.

    Raises NotDense where a site has no stride-1 form or is not circular, where the head sees the
    place, and where maps or vectors of different phases meet.
    """
    phases = Phases()
    # Three images: maps of one would spread to those of all phases without a word.
    image = jax.ShapeDtypeStruct((3, *shape[1:]), jnp.float32)
    try:
        found, total = moved.traced(functools.partial(_dense_pass, net, phases), variables, image)
    except (TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise NotDense(f"maps of different phases do not fit together: {first}") from error
    distinct = phases.lattice[0] * phases.lattice[1]
    if found.shape[0] != 3 * distinct:
        raise NotDense(f"expected {distinct} rows of logits an image, got shape {found.shape} of 3")
    widest = jnp.promote_types(found.dtype, jnp.float32)
    return Plan(phases.lattice, phases.selects, total // 3, found.shape[1] * widest.itemsize)


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
    last: tuple[int, ...] | None = None
    inside: bool = False

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or not args or self.inside:
            return call(*args, **kwargs)
        if np.ndim(args[0]) == 2:
            self.refuse_places(args[0].shape[-1], module)
        if np.ndim(args[0]) != 4:
            return call(*args, **kwargs)
        if not self.seen:
            self.seen[args[0].shape[:3]] = (1, 1)
        y = self.map(call, args, kwargs, module)
        first = y[0] if isinstance(y, tuple) else y
        if np.ndim(first) == 4:
            self.last = first.shape[1:]
        return y

    def map(self, call: Callable[..., Any], args: Any, kwargs: Any, module: Any) -> Any:
        if sites.is_pool(module):
            return self.pool(call, args, kwargs, module)
        if sites.is_conv(module):
            return self.convolve(call, args, kwargs, module)
        if getattr(module, "function", None) is heads.flatten:
            self.last = args[0].shape[1:]
            self.refuse_places(math.prod(self.last), module)
        return call(*args, **kwargs)

    def refuse_places(self, features: int, module: Any) -> None:
        """Raise where the first vector after a map holds every place of it."""
        last, self.last = self.last, None
        if last and features == math.prod(last) and math.prod(last[:2]) > 1:
            raise NotDense(f"{sites.name(module)}: a flatten head sees the place")

    def pool(self, call: Callable[..., Any], args: Any, kwargs: Any, module: Any) -> Any:
        x, card = args[0], POOLS[module.method]
        if card.equivariance == "P2":
            y = call(*args, **kwargs)
            self.selects = True
            self.note((y[0] if isinstance(y, tuple) else y).shape, self.lattice_of(x, module))
            return y
        if not card.has_dense:
            raise NotDense(f"{sites.name(module)}: pool {module.method!r} has no stride-1 form")
        site = circular_site(module, x)
        if site.wraps:
            return self.split(module.dense(x, **kwargs), x, site)
        y = valid_pool(module).apply(
            module.variables, wrapped(x, site.window), method="dense", **kwargs
        )
        return self.split(y, x, site)

    def convolve(self, call: Callable[..., Any], args: Any, kwargs: Any, module: Any) -> Any:
        x = args[0]
        site = circular_site(module, x)
        if site.stride == (1, 1):
            y = call(*args, **kwargs)
            self.note(y.shape, self.lattice_of(x, module))
            return y
        own: dict[str, Any] = {"strides": (1, 1), "parent": None, "name": None}
        if not site.wraps:
            x, own["padding"] = wrapped(x, site.window), "VALID"
        self.inside = True  # the stride-1 form is a call of its own
        y = module.clone(**own).apply(module.variables, x, *args[1:], **kwargs)
        self.inside = False
        return self.split(y, args[0], site)

    def split(self, y: jax.Array, x: jax.Array, site: Site) -> jax.Array:
        """Move the phases of the dense map y into the batch."""
        rows, columns = self.lattice_at(x, site.path)
        (down, across), (height, width) = site.stride, y.shape[1:3]
        if y.shape[1:3] != x.shape[1:3]:
            raise NotDense(f"{site.path}: takes {x.shape[1:3]} to {y.shape[1:3]} at stride 1")
        if site.stride == (1, 1):
            return y
        if self.selects:
            raise NotDense(f"{site.path}: a plain stride after one that selects its phase")
        y = y.reshape(rows, columns, -1, height // down, down, width // across, across, y.shape[-1])
        y = y.transpose(4, 0, 6, 1, 2, 3, 5, 7)
        y = y.reshape(-1, height // down, width // across, y.shape[-1])
        self.note(y.shape, (rows * down, columns * across))
        return y

    def lattice_of(self, x: jax.Array, module: Any) -> Size:
        return self.lattice_at(x, sites.name(module))

    def lattice_at(self, x: jax.Array, path: str) -> Size:
        if x.shape[:3] not in self.seen:
            raise NotDense(f"{path}: the map {x.shape[1:3]} comes from an unknown stride")
        return self.seen[x.shape[:3]]

    def note(self, shape: tuple[int, ...], lattice: Size) -> None:
        if self.seen.setdefault(shape[:3], lattice) != lattice:
            raise NotDense(f"two maps of shape {shape[:3]} stand for different phases")
        self.lattice = (max(self.lattice[0], lattice[0]), max(self.lattice[1], lattice[1]))


def circular_site(module: Any, x: jax.Array) -> Site:
    """Return the site that module is on x; NotDense where a roll of x does not roll its output."""
    site = sites.read(module, (x.shape[1], x.shape[2]))
    if site.flaw:
        raise NotDense(f"{site.path}: {site.flaw}")
    return site


def valid_pool(module: Any) -> Any:
    """Return the pool, unbound, with its padding left out."""
    own: dict[str, Any] = {"parent": None, "name": None}
    if hasattr(module, "arguments"):
        arguments: Any = FrozenDict({**module.arguments, "padding": "VALID"})
        return module.clone(arguments=arguments, **own)
    return module.clone(padding="VALID", **own)


def wrapped(x: jax.Array, window: Size) -> jax.Array:
    """Extend x so that VALID windows at stride 1 give a map of its size."""
    return jnp.pad(x, ((0, 0), (0, window[0] - 1), (0, window[1] - 1), (0, 0)), mode="wrap")


def prove(
    net: nn.Module, variables: Any, sample: np.ndarray, phases: np.ndarray, *, memory: int
) -> None:
    """Raise NotDense unless the phases of `sample` (n, H, W, C) are what rolling it gives."""
    size = pads.spatial_size(sample)
    drawn = np.random.default_rng(0).integers(0, size, (5, 2))
    offsets = np.concatenate([[(0, 0), (1, 0), (0, 1)], drawn]) % size
    call = moved.InEvaluation(net)
    rolled = moved.shift_logits(
        call, sample, offsets, variables=variables, memory=memory, quick=True
    )
    found = _all_shifts(phases, size)[:, offsets[:, 0] * size[1] + offsets[:, 1]]
    worst = float(np.abs(found - rolled).max())
    if not worst <= AGREE * max(1.0, float(np.abs(rolled).max())):
        raise NotDense(f"rolling disagrees with the dense pass by {worst:.3g} on a sample")


def _shuffled(x: np.ndarray) -> np.ndarray:
    """Return one image (1, H, W, C) of pixels of x in random places: no two phases alike."""
    pixels = x[:64].reshape(-1, x.shape[-1])
    drawn = np.random.default_rng(0).permutation(pixels)[: x.shape[1] * x.shape[2]]
    return drawn.reshape(x[:1].shape)


def _dense_pass(net: nn.Module, phases: Phases, variables: Any, x: jax.Array) -> Any:
    with nn.intercept_methods(phases):
        return moved.vectors(moved.InEvaluation(net)(variables, x), "net")


def _run(call: moved.OfNet, variables: Any, x: jax.Array) -> jax.Array:
    return wide(_dense_pass(call.net, Phases(), variables, x))


_quick_run = quick_jit(_run, static_argnums=0)


def _dense_logits(
    net: nn.Module, variables: Any, x: np.ndarray, planned: Plan, *, memory: int, batch_size: int
) -> np.ndarray:
    """Return (row phases, column phases, N, classes)."""
    lattice = planned.lattice
    result = len(x) * x.shape[1] * x.shape[2] * planned.phase_bytes
    most = min(len(x), max(1, batch_size // math.prod(lattice)))
    rows = moved.within_memory(memory, result=result, row=planned.image_bytes, most=most)
    of_net = moved.InEvaluation(net)
    parts = []
    for first in range(0, len(x), rows):
        index = np.minimum(np.arange(first, first + rows), len(x) - 1)
        found = np.asarray(_quick_run(of_net, variables, x[index]))
        parts.append(found.reshape(*lattice, rows, -1))
    return np.concatenate(parts, axis=2)[:, :, : len(x)]


def _all_shifts(phases: np.ndarray, size: Size) -> np.ndarray:
    # Keeping phase p is what shifting the input by -p does.
    rows, columns = (-moves.all_offsets(size) % np.asarray(phases.shape[:2])).T
    return phases[rows, columns].transpose(1, 0, 2)

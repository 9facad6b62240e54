"""What a net's plan says about shifts, before anything is computed: net -> Structure.

    plan = structure.read(net, variables, (32, 32, 3))
    plan.circular, plan.stride, plan.margin, plan.head, plan.sites

Every convolution and pool that a forward pass calls is a `sites.Site`. The total stride, and how
far into the last map what was padded or wrapped at the border can be seen, are read off the traced
program (`ops.receptive`), so that what a net does between its modules counts too; `margin` is the
latter in input pixels. Where branches meet, the wider counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.invariance import sites
from cnnjax.invariance.logits import InEvaluation, vectors
from cnnjax.invariance.sites import Sides, Site, Size
from cnnjax.ops import heads, receptive
from cnnjax.ops.views import View

Rate = tuple[float, float]
IMAGE = "(image)"


@dataclass(frozen=True)
class Structure:
    """Sites in order, the total stride, the last map (H', W', C), the head and the margin.

    The stride is a fraction where transposed convolutions leave the map larger than the image.
    """

    sites: tuple[Site, ...]
    stride: Rate
    last: tuple[int, ...]
    head: str
    margin: int
    touched: Sides

    @property
    def circular(self) -> bool:
        """True where every site wraps around."""
        return all(site.circular for site in self.sites)

    @property
    def selecting(self) -> tuple[str, ...]:
        """The paths of sites that select their phase by content."""
        return tuple(site.path for site in self.sites if site.selects)

    def sentence(self) -> str:
        """Return the plan in words."""
        borders = "all circular" if self.circular else f"not all circular ({self.first_padded()})"
        return (
            f"Total stride {self.stride[0]:g} x {self.stride[1]:g}; borders {borders}; "
            f"head: {self.head}; phase-selecting sites: {', '.join(self.selecting) or 'none'}."
        )

    def first_padded(self) -> str:
        """Return the first site that does not wrap around, in words; there must be one."""
        site = next(site for site in self.sites if not site.circular)
        return f"{site.path}: {site.flaw}"


def read(net: nn.Module, variables: Any, image_shape: tuple[int, ...]) -> Structure:
    """Trace net on one image (H, W, C): the sites are its modules', the rest is its program's."""
    reader = _Reader()
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)

    def run(variables: Any, x: jax.Array) -> Any:
        x = receptive.leave(receptive.enter(x, IMAGE), IMAGE)
        with nn.intercept_methods(reader):
            logits = vectors(InEvaluation(net)(variables, x), "net")
        reader.features = reader.features or logits.shape[-1]
        return logits

    reading = receptive.read(run, variables, image, watch=1)
    maps = [reading.marks[name] for name in reader.maps]
    last = reading.entered[reader.head] if reader.head else maps[-1]
    height, width, channels = last.shape[1:]
    # Branches that meet outside of modules: the widest counts.
    alike = [last, *(one for one in maps if one.shape[1:3] == (height, width))]
    told = reader.strides.get((height, width), (Fraction(1), Fraction(1)))
    rows, columns = (
        _Axis(last.shape[axis], image.shape[axis], axis, told[axis - 1],
              tuple(one.views[axis - 1] for one in alike))
        for axis in (1, 2)
    )  # fmt: skip
    return Structure(
        sites=tuple(reader.sites),
        stride=(rows.stride, columns.stride),
        last=(height, width, channels),
        head="flatten" if reader.flattens else _head(reader.features, last.shape[1:]),
        margin=math.ceil(max(each.stride * max(each.touched) for each in (rows, columns))),
        touched=(rows.touched, columns.touched),
    )


class _Axis(NamedTuple):
    """The last map along one axis: its cells, the image's pixels, and what cells see of them.

    The first of `views` is the last map's, the others are those of the maps beside it. `told` is
    the product of the sites' strides.
    """

    cells: int
    pixels: int
    axis: int
    told: Fraction
    views: tuple[View | None, ...]

    @property
    def stride(self) -> float:
        """The step from cell to cell; as the sites tell it, where the program mixes the map in no
        regular way (a spectrum) or has one cell alone."""
        stride = self._step(self.views[0]) or self.told
        return int(stride) if stride == int(stride) else float(stride)

    @property
    def touched(self) -> Size:
        """How many cells from either end see beyond the image; all, where nobody can tell."""
        below, above = zip(*map(self._beyond, self.views), strict=True)
        return max(below), max(above)

    def _step(self, view: View | None) -> float:
        return abs(view.steps[self.axis]) if view else 0

    def _beyond(self, view: View | None) -> Size:
        step = self._step(view)
        if view is None or (self.cells > 1 and not step):
            return self.cells, self.cells
        starts = [cell * step for cell in range(self.cells)]
        below = sum(view.low + start < 0 for start in starts)
        above = sum(view.high + start > self.pixels - 1 for start in starts)
        return int(below), int(above)


@dataclass
class _Reader:
    """The interceptor: sites in order, and by their marks in the program maps and the head.

    `head` is the first module that makes something else of the last map, "" where that is the net
    itself; `features` are the values of the vector that comes of it.
    """

    sites: list[Site] = field(default_factory=list)
    strides: dict[Size, tuple[Fraction, Fraction]] = field(default_factory=dict)
    maps: list[str] = field(default_factory=lambda: [IMAGE])
    head: str = ""
    flattens: bool = False
    features: int = 0

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module, name = context.module, "/".join(context.module.path)
        if context.method_name != "__call__" or not args or not hasattr(args[0], "ndim"):
            return call(*args, **kwargs)
        result = receptive.between_marks(call, args, kwargs, name)
        y = result[0] if isinstance(result, tuple) else result
        if not hasattr(y, "ndim"):
            return result
        if args[0].ndim == 4 and sites.is_site(module):
            self.site(module, args[0].shape[1:3], y.shape[1:3])
        if name:
            self.follow(module, name, args[0], y)
        return result

    def follow(self, module: Any, name: str, x: jax.Array, y: jax.Array) -> None:
        if y.ndim == 4:
            self.maps.append(name)
            self.head, self.flattens, self.features = "", False, 0
            return
        if x.ndim == 4 and not self.head:
            self.head = name
            self.flattens = getattr(module, "function", None) is heads.flatten
        if x.ndim in (2, 4) and not self.features:
            # The vector that a layer takes; or that a head gives, which has no layer inside.
            self.features = (x if x.ndim == 2 else y).shape[-1]

    def site(self, module: Any, size: Size, output: Size) -> None:
        site = sites.read(module, size, output)
        self.sites.append(site)
        total = self.strides.get(size, (Fraction(1), Fraction(1)))
        steps = zip(total, site.stride, site.grows, strict=True)
        rows, columns = (t * s / g for t, s, g in steps)
        self.strides[output] = (rows, columns)


def _head(features: int, last: tuple[int, ...]) -> str:
    height, width, channels = last
    if height * width == 1:
        return "1 x 1 map"
    if features == height * width * channels:
        return "flatten"
    return "global" if features % channels == 0 and features <= 4 * channels else "unknown"

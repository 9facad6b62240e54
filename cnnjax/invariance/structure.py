"""What a net's plan says about shifts, before anything is computed: net -> Structure.

    plan = structure.read(net, variables, (32, 32, 3))
    plan.circular, plan.stride, plan.margin, plan.head, plan.sites

Every convolution and pool that a forward pass calls is a `sites.Site`. `margin` is how many input
pixels from the border the last map can see what was padded or wrapped there; where branches meet,
the wider counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance import sites
from cnnjax.invariance.logits import InEvaluation, vectors
from cnnjax.invariance.sites import NO_PADDING, Sides, Site, Size
from cnnjax.ops import heads

Rate = tuple[float, float]


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
    """Trace net on one image (H, W, C) and read its structure off the modules it calls."""
    reader = _Reader()
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)

    def run(variables: Any, x: jax.Array) -> Any:
        with nn.intercept_methods(reader):
            return vectors(InEvaluation(net)(variables, x), "net")

    logits = jax.eval_shape(run, variables, image)
    last = reader.last or tuple(image_shape)
    size = (last[0], last[1])
    stride: tuple[Fraction, Fraction] = reader.strides.get(size, (Fraction(1), Fraction(1)))
    touched = reader.touched.get(size, NO_PADDING)
    margin = math.ceil(
        max(float(cells * s) for side, s in zip(touched, stride, strict=True) for cells in side)
    )
    features = reader.features or logits.shape[-1]
    head = reader.head or _head(features, last)
    return Structure(tuple(reader.sites), _plain(stride), last, head, margin, touched)


@dataclass
class _Reader:
    sites: list[Site] = field(default_factory=list)
    touched: dict[Size, Sides] = field(default_factory=dict)
    strides: dict[Size, tuple[Fraction, Fraction]] = field(default_factory=dict)
    last: tuple[int, ...] = ()
    features: int = 0
    head: str = ""

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        module = context.module
        if context.method_name != "__call__" or not args or not hasattr(args[0], "ndim"):
            return result
        if args[0].ndim == 4 and sites.is_site(module):
            y = result[0] if isinstance(result, tuple) else result
            self.site(module, args[0].shape[1:3], y.shape[1:3])
        y = result[0] if isinstance(result, tuple) else result
        if getattr(y, "ndim", 0) == 4 and module.path:
            self.last, self.features, self.head = y.shape[1:], 0, ""
        elif args[0].ndim == 4 and getattr(module, "function", None) is heads.flatten:
            self.head, self.features = "flatten", y.shape[-1]
        elif args[0].ndim == 2 and not self.features:
            self.features = args[0].shape[-1]
        return result

    def site(self, module: Any, size: Size, output: Size) -> None:
        site = sites.read(module, size, output)
        self.sites.append(site)
        total = self.strides.get(size, (Fraction(1), Fraction(1)))
        steps = zip(total, site.stride, site.grows, strict=True)
        rows, columns = (t * s / g for t, s, g in steps)
        self.strides[output] = (rows, columns)
        after = site.touched(self.touched.get(size, NO_PADDING))
        known = self.touched.get(output, NO_PADDING)
        (top, bottom), (left, right) = np.maximum(after, known).tolist()
        self.touched[output] = ((top, bottom), (left, right))


def _plain(stride: Any) -> Rate:
    """Return whole strides as ints, others as floats."""
    rows, columns = (int(s) if s == int(s) else float(s) for s in stride)
    return rows, columns


def _head(features: int, last: tuple[int, ...]) -> str:
    height, width, channels = last
    if height * width == 1:
        return "1 x 1 map"
    if features == height * width * channels:
        return "flatten"
    return "global" if features % channels == 0 and features <= 4 * channels else "unknown"

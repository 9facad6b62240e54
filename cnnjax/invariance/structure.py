"""What a net's plan says about shifts, before anything is computed: net -> Structure.

    plan = structure.read(net, variables, (32, 32, 3))
    plan.circular, plan.stride, plan.margin, plan.head, plan.sites

Every convolution and pool that a forward pass calls is a Site. `margin` is how many input pixels
from the border the last map can see what was padded or wrapped there; where branches meet, the
wider counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.invariance.exhaustive import is_conv, is_pool, name, pair
from cnnjax.invariance.logits import InEvaluation
from cnnjax.layers.pooling import POOLS
from cnnjax.ops import heads
from cnnjax.ops import padding as pads

Size = tuple[int, int]


@dataclass(frozen=True)
class Site:
    """One convolution or pool: where it is and what it does to a map of `size` (H, W)."""

    path: str
    kind: str
    size: Size
    output: Size
    stride: Size
    padding: str
    circular: bool
    selects: bool


@dataclass(frozen=True)
class Structure:
    """Sites in order, the total stride, the last map (H', W', C), the head and the margin."""

    sites: tuple[Site, ...]
    stride: Size
    last: tuple[int, ...]
    head: str
    margin: int
    touched: tuple[Size, Size]

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
            f"Total stride {self.stride[0]} x {self.stride[1]}; borders {borders}; "
            f"head: {self.head}; phase-selecting sites: {', '.join(self.selecting) or 'none'}."
        )

    def first_padded(self) -> str:
        """Return the first site that does not wrap around, in words; there must be one."""
        site = next(site for site in self.sites if not site.circular)
        return f"{site.path}: padding {site.padding}, stride {site.stride} on {site.size}"


def read(net: nn.Module, variables: Any, image_shape: tuple[int, ...]) -> Structure:
    """Trace net on one image (H, W, C) and read its structure off the modules it calls."""
    reader = _Reader()
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)

    def run(variables: Any, x: jax.Array) -> Any:
        with nn.intercept_methods(reader):
            return InEvaluation(net)(variables, x)

    logits = jax.eval_shape(run, variables, image)
    last = reader.last or tuple(image_shape)
    size = (last[0], last[1])
    stride = reader.strides.get(size, (1, 1))
    touched = reader.touched.get(size, ((0, 0), (0, 0)))
    margin = max(cells * s for sides, s in zip(touched, stride, strict=True) for cells in sides)
    features = reader.features or logits.shape[-1]
    head = reader.head or _head(features, last)
    return Structure(tuple(reader.sites), stride, last, head, margin, touched)


@dataclass
class _Reader:
    sites: list[Site] = field(default_factory=list)
    touched: dict[Size, tuple[Size, Size]] = field(default_factory=dict)
    strides: dict[Size, Size] = field(default_factory=dict)
    last: tuple[int, ...] = ()
    features: int = 0
    head: str = ""

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        module = context.module
        if context.method_name != "__call__" or not args or not hasattr(args[0], "ndim"):
            return result
        if args[0].ndim == 4 and (is_pool(module) or is_conv(module)):
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
        window, stride = _window(module), pair(getattr(module, "stride", None) or _strides(module))
        padding = module.padding
        free = window == (1, 1) or (padding == "VALID" and _tiles(size, output, stride))
        circular = (padding in (None, "CIRCULAR") or free) and _divides(size, stride)
        selects = is_pool(module) and POOLS[module.method].equivariance == "P2"
        kind = module.method if is_pool(module) else "convolution"
        text = "none" if window == (1, 1) or padding is None else str(padding)
        self.sites.append(Site(name(module), kind, size, output, stride, text, circular, selects))
        total = self.strides.get(size, (1, 1))
        self.strides[output] = (total[0] * stride[0], total[1] * stride[1])
        sides = _sides(padding, size, window, stride)
        before = self.touched.get(size, ((0, 0), (0, 0)))
        after = tuple(map(_spread, size, output, window, stride, sides, before))
        known = self.touched.get(output, ((0, 0), (0, 0)))
        self.touched[output] = tuple(
            (max(a[0], b[0]), max(a[1], b[1])) for a, b in zip(after, known, strict=True)
        )  # type: ignore[assignment]


def _spread(n: int, out: int, window: int, stride: int, pad: Size, before: Size) -> Size:
    """Cells of the output, from either end, whose window holds padding or a touched cell."""
    if not any(pad) and not any(before):
        return (0, 0)
    low = -(-(before[0] + pad[0]) // stride)
    last_clean = (n - 1 - before[1] + pad[0] - (window - 1)) // stride
    return min(low, out), min(max(out - 1 - last_clean, 0), out)


def _sides(padding: Any, size: Size, window: Size, stride: Size) -> tuple[Size, Size]:
    if padding is None:
        return (0, 0), (0, 0)
    if isinstance(padding, int):
        padding = ((padding, padding),) * 2
    if not isinstance(padding, str):
        padding = tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
    return pads.amounts(size, window, stride, padding)


def _window(module: Any) -> Size:
    if is_conv(module):
        size, dilation = pair(module.kernel_size), pair(getattr(module, "kernel_dilation", 1))
        return (size[0] - 1) * dilation[0] + 1, (size[1] - 1) * dilation[1] + 1
    own = getattr(module, "arguments", {}).get("filter_size", getattr(module, "filter_size", 1))
    window = pair(module.window)
    return window[0] + (own or 1) - 1, window[1] + (own or 1) - 1


def _strides(module: Any) -> Any:
    return getattr(module, "strides", None)


def _divides(size: Size, stride: Size) -> bool:
    return all(n % s == 0 for n, s in zip(size, stride, strict=True))


def _tiles(size: Size, output: Size, stride: Size) -> bool:
    return all(m * s == n for n, m, s in zip(size, output, stride, strict=True))


def _head(features: int, last: tuple[int, ...]) -> str:
    height, width, channels = last
    if height * width == 1:
        return "1 x 1 map"
    if features == height * width * channels:
        return "flatten"
    return "global" if features % channels == 0 and features <= 4 * channels else "unknown"

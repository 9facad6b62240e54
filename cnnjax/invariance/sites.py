"""Where a net samples: one convolution or pool on a map of one size -> Site.

    sites.is_site(module)                         # a convolution or a pool
    site = sites.read(module, (32, 32))           # the map's size
    site.stride, site.window, site.sides          # (2, 2), (3, 3), ((1, 1), (1, 1))
    site.flaw                                     # "" or why it does not wrap around

The one place that says so. `window` is all that an output sees: a blur's taps and the convolution
by which lip judges are part of it. A site is circular where what it pads wraps around, or where no
window reaches beyond the map (patches, SAME 2/2 on even maps), and its stride divides the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import numpy as np

from cnnjax.layers.conv import both_sides
from cnnjax.layers.pooling import POOLS
from cnnjax.ops import padding as pads

Size = tuple[int, int]
Sides = tuple[Size, Size]
Stage = tuple[Size, Any]  # a window and the padding before it

NO_PADDING: Sides = ((0, 0), (0, 0))
WRAPS = (None, "CIRCULAR")
# Their window is their stride, whatever it is.
BLOCKS, BLOCKS_AFTER = ("space_to_depth", "haar"), ("s3",)


@dataclass(frozen=True)
class Site:
    """One convolution or pool: where it is and what it does to a map of `size` (H, W).

    `grows` is the factor by which a transposed convolution enlarges the map, (1, 1) elsewhere;
    `sides` what is padded before and after. `wraps` is True where all padding is circular.
    """

    path: str
    kind: str
    size: Size
    output: Size
    window: Size
    stride: Size
    grows: Size
    padding: str
    sides: Sides
    wraps: bool
    flaw: str
    selects: bool

    @property
    def circular(self) -> bool:
        """True where a roll of the map by whole strides rolls the output."""
        return not self.flaw


def read(module: Any, size: Size, output: Size | None = None) -> Site:
    """Return the site that a convolution or pool is on a map of `size`.

    `output` is the size that it returns, for those that follow no rule of padding.
    """
    pool, grows = is_pool(module), growth(module)
    steps = pair(module.stride if pool else module.strides)
    # What enlarges a map samples nothing.
    stride = (1, 1) if is_transposed(module) else steps
    chain = stages(module)
    sides, ruled = _pad_all(size, stride, chain)
    output = output or (ruled if grows == (1, 1) else (size[0] * grows[0], size[1] * grows[1]))
    window = _reach(chain)
    wraps = all(padding in WRAPS for _, padding in chain)
    selects = pool and POOLS[module.method].equivariance == "P2"
    drawn = pool and POOLS[module.method].equivariance == "P6"
    flaw = "follows no lattice" if drawn else _flaw(size, output, chain, stride, grows, sides)
    return Site(
        path=name(module),
        kind=_kind(module),
        size=size,
        output=output,
        window=window,
        stride=stride,
        grows=grows,
        padding="none" if window == (1, 1) or chain[0][1] is None else str(chain[0][1]),
        sides=sides,
        wraps=wraps,
        flaw=flaw,
        selects=selects,
    )


def stages(module: Any) -> tuple[Stage, ...]:
    """Return the windows that a site slides in turn, each with its padding; the last one strides.

    A maximum before a blur, or the convolution by which lip judges before its mean.
    """
    if is_conv(module):
        size, dilation = pair(module.kernel_size), pair(getattr(module, "kernel_dilation", 1))
        window = ((size[0] - 1) * dilation[0] + 1, (size[1] - 1) * dilation[1] + 1)
        return ((window, both_sides(module.padding)),)
    if isinstance(getattr(module, "inner", None), nn.Module):
        return stages(module.inner)
    own = _arguments(module)
    padding = own.get("padding", module.padding)
    window = pair(module.stride if module.method in BLOCKS else own.get("window"))
    found: list[Stage] = [(window, padding)]
    if hasattr(module, "around"):
        found.insert(0, (pair(own["kernel_size"]), module.around))
    if "filter_size" in own:
        found.append((pair(own["filter_size"]), padding))
    if module.method in BLOCKS_AFTER:
        found.append((pair(module.stride), None))
    return tuple(found)


def reach(module: Any) -> Size:
    """Return (rows, columns) of the input that one output of a site sees."""
    return _reach(stages(module))


def growth(module: Any) -> Size:
    """Return by what factor a convolution enlarges its map: (1, 1) unless it is transposed."""
    if is_transposed(module):
        return pair(module.strides)
    return pair(getattr(module, "input_dilation", 1)) if is_conv(module) else (1, 1)


def is_site(module: Any) -> bool:
    """True for convolutions and pools."""
    return is_pool(module) or is_conv(module)


def is_pool(module: Any) -> bool:
    """True for the modules of `cnnjax.Pool`."""
    return getattr(module, "method", None) in POOLS and hasattr(module, "dense")


def is_conv(module: Any) -> bool:
    """True for convolutions of maps: flax.linen.Conv, ConvTranspose and modules with its fields."""
    fields = ("kernel_size", "strides", "padding", "features")
    return all(hasattr(module, field) for field in fields) and np.size(module.kernel_size) <= 2


def is_transposed(module: Any) -> bool:
    """True for flax.linen.ConvTranspose, whose strides enlarge the map."""
    return is_conv(module) and hasattr(module, "transpose_kernel")


def pair(value: Any) -> Size:
    """Return a module's kernel size or strides as (rows, columns); None means 1."""
    if value is None:
        return (1, 1)
    return pads.pair(tuple(value) if np.ndim(value) else value, "strides")


def name(module: nn.Module) -> str:
    """Return where a module stands in its net; its type where it is the net, or in none."""
    path = module.path if module.scope is not None else ()
    return "/".join(path) or type(module).__name__


def _kind(module: Any) -> str:
    if is_pool(module):
        return str(module.method)
    return "transposed convolution" if is_transposed(module) else "convolution"


def _arguments(module: Any) -> dict[str, Any]:
    """Return a pool's arguments, those left at the card's default included."""
    given = getattr(module, "arguments", None)
    if given is None:
        given = {field: getattr(module, field) for field in type(module).__dataclass_fields__}
    # What canonical makes exact is described by the card of its inner method.
    card = given.get("inner") or POOLS[module.method]
    return {**card.params, **given}


def _reach(chain: tuple[Stage, ...]) -> Size:
    rows, columns = (1 + sum(window[axis] - 1 for window, _ in chain) for axis in (0, 1))
    return rows, columns


def _pad_all(size: Size, stride: Size, chain: tuple[Stage, ...]) -> tuple[Sides, Size]:
    """Return what all stages pad together, and the size after them."""
    total = np.zeros((2, 2), int)
    for place, (window, padding) in enumerate(chain):
        step = stride if place == len(chain) - 1 else (1, 1)
        sides = NO_PADDING if padding is None else pads.amounts(size, window, step, padding)
        total += np.asarray(sides)
        rows, columns = (
            max((n + sum(side) - w) // s + 1, 0) if padding is not None else -(-n // s)
            for n, w, s, side in zip(size, window, step, sides, strict=True)
        )
        size = (rows, columns)
    (top, bottom), (left, right) = total.tolist()
    return ((top, bottom), (left, right)), size


def _flaw(
    size: Size, output: Size, chain: tuple[Stage, ...], stride: Size, grows: Size, sides: Sides
) -> str:
    """Return why a roll of the map by whole strides would not roll the output; "" where it does."""
    window = _reach(chain)
    if grows == (1, 1) and all(map(_inside, size, output, window, stride, sides)):
        return ""
    open_ends = [padding for _, padding in chain if padding not in WRAPS]
    if open_ends:
        padded = [padding for padding in open_ends if padding != "VALID"]
        return (
            f"padding {padded[0]!r} is not circular"
            if padded
            else f"VALID windows do not tile the map {size}"
        )
    if any(n % s for n, s in zip(size, stride, strict=True)):
        return f"stride {stride} does not divide the map {size}"
    tiles = all(m * s == n * g for n, m, s, g in zip(size, output, stride, grows, strict=True))
    return "" if tiles else f"takes the map {size} to {output}, no whole strides {stride}"


def _inside(n: int, m: int, window: int, stride: int, side: Size) -> bool:
    """True where the windows tile the axis and none of them reaches beyond it."""
    return m * stride == n and not side[0] and (m - 1) * stride + window <= n

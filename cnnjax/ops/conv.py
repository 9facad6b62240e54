"""Convolution, x (..., H, W, C) and kernel (kh, kw, C / groups, D) -> (..., H', W', D).

    y = conv(x, kernel, stride=2, padding="CIRCULAR")

Correlation, as in every deep-learning library. What is chosen here is the form in which XLA is
asked for it on CPU; on GPU and TPU the forms are JAX's own.

- XLA has fast CPU kernels only for convolutions in canonical layout (NHWC by HWIO), and it rewrites
  others into it only outside of loops and branches. The gradients JAX derives are not canonical,
  hence 30 to 250 times slower inside `scan`, `map` or `cond`; those here are canonical everywhere.
- Of its two such kernels XLA prefers the slower: `_canonical` leads it to the other.
- On images of few channels a small kernel is a sum of shifted maps (`_by_taps`).
- The gradient of a map of few channels is one matrix product for all taps, the batch innermost
  (`_input_gradient_by_columns`).
- Several groups run one after another, a depthwise kernel as a sum of shifted maps.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.ops import padding as pads
from cnnjax.ops.fusion import apart
from cnnjax.ops.multilinear import Function, multilinear, to_front
from cnnjax.ops.padding import Padding, Pair

LAYOUT = ("NHWC", "HWIO", "NHWC")
UNROLLED = 32  # groups, or mapped kernels, that run one after another; compile time bounds it
SMALL = 16  # features of which Eigen computes as many at once
SHORT = 4096  # terms of a sum up to which Eigen, for so few features, is not the faster
FEW = 32  # taps, each channel's own, up to which their sum is faster than any convolution
COLUMNS = 10 << 20  # bytes up to which g times every tap at once is faster than a convolution
PADDED_BY_COPY = ("CIRCULAR", "REFLECT", "EDGE")


class Geometry(NamedTuple):
    """How a kernel slides: outputs at 0, s, 2s, ... of the map padded with zeros by `sides`."""

    stride: Pair
    sides: tuple[Pair, Pair]
    dilation: Pair
    groups: int


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int | Pair = 1,
    padding: Padding = "SAME",
    dilation: int | Pair = 1,
    groups: int = 1,
) -> jax.Array:
    """Convolve x (..., H, W, C) with kernel (kh, kw, C / groups, D): (..., H', W', D).

    `padding` is a rule of `ops.padding`; a dilated kernel counts as a window of (k - 1) * d + 1.
    The dtype is the promoted one of both. Raises TypeError for integers, ValueError for shapes,
    groups or a window that do not fit.
    """
    x, kernel = pads.feature_map(x), _checked_kernel(kernel)
    groups = _checked_groups(groups, x.shape[-1], kernel.shape)
    stride, dilation = pads.pair(stride, "stride"), pads.pair(dilation, "dilation")
    kh, kw = kernel.shape[:2]
    window = (kh - 1) * dilation[0] + 1, (kw - 1) * dilation[1] + 1
    if isinstance(padding, str) and padding in PADDED_BY_COPY:
        x = pads.pad(x, window=window, stride=stride, padding=padding)
        padding = "VALID"
    pads.output_size(pads.spatial_size(x), window, stride, padding)
    sides = pads.amounts(pads.spatial_size(x), window, stride, padding)
    dtype = jnp.result_type(x, kernel)
    geometry = Geometry(stride, sides, dilation, groups)
    return _product(x.astype(dtype), kernel.astype(dtype), geometry=geometry)


def _checked_kernel(kernel: Any) -> jax.Array:
    if not hasattr(kernel, "shape") or not hasattr(kernel, "dtype"):
        raise TypeError(f"kernel: expected an array, got {type(kernel).__name__}")
    if not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise TypeError(f"kernel: expected floating values, got {kernel.dtype}")
    if len(kernel.shape) != 4 or 0 in kernel.shape:
        raise ValueError(
            f"kernel: expected (kh, kw, C / groups, D), none of them 0, got shape {kernel.shape}"
        )
    return jnp.asarray(kernel)


def _checked_groups(groups: Any, channels: int, kernel_shape: Sequence[int]) -> int:
    if isinstance(groups, bool) or not hasattr(groups, "__index__"):
        raise TypeError(f"groups: expected an int >= 1, got {groups!r}")
    groups = operator.index(groups)
    features = kernel_shape[-1]
    if groups < 1 or channels % groups or features % groups:
        raise ValueError(
            f"groups: expected an int >= 1 that divides {channels} input channels and "
            f"{features} features, got {groups}"
        )
    if kernel_shape[2] * groups != channels:
        raise ValueError(
            f"kernel: expected {channels // groups} input channels for x with {channels} channels "
            f"in {groups} groups, got shape {tuple(kernel_shape)}"
        )
    return groups


# Three maps are one trilinear form sum(g * conv(x, kernel)) with one argument left open; each is
# linear in both of its arguments, and the transposes of each are the other two. First JAX's own
# forms of them, then those for CPU.


def _stock(x: jax.Array, kernel: jax.Array, *, geometry: Geometry) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.stride,
        geometry.sides,
        rhs_dilation=geometry.dilation,
        dimension_numbers=LAYOUT,
        feature_group_count=geometry.groups,
    )


def _stock_input_gradient(
    g: jax.Array, kernel: jax.Array, *, geometry: Geometry, size: Pair
) -> jax.Array:
    x = jax.ShapeDtypeStruct((len(g), *size, kernel.shape[2] * geometry.groups), g.dtype)
    return jax.linear_transpose(lambda x: _stock(x, kernel, geometry=geometry), x)(g)[0]


def _stock_kernel_gradient(
    x: jax.Array, g: jax.Array, *, geometry: Geometry, window: Pair
) -> jax.Array:
    shape = (*window, x.shape[-1] // geometry.groups, g.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    return jax.linear_transpose(lambda kernel: _stock(x, kernel, geometry=geometry), kernel)(g)[0]


def _forward(x: jax.Array, kernel: jax.Array, *, geometry: Geometry) -> jax.Array:
    if geometry.groups == 1:
        return _dense_forward(geometry, x, kernel)
    if kernel.shape[2] == 1:
        return _depthwise(geometry, x, kernel)
    if geometry.groups > UNROLLED:
        return _stock(x, kernel, geometry=geometry)
    one = functools.partial(_dense_forward, geometry._replace(groups=1))
    return _per_group(one, geometry, x, kernel)


def _input_gradient(
    g: jax.Array, kernel: jax.Array, *, geometry: Geometry, size: Pair
) -> jax.Array:
    if geometry.groups == 1:
        return _dense_input_gradient(geometry, size, g, kernel)
    if kernel.shape[2] == 1:
        return _depthwise_input_gradient(geometry, size, g, kernel)
    if geometry.groups > UNROLLED:
        return _stock_input_gradient(g, kernel, geometry=geometry, size=size)
    one = functools.partial(_dense_input_gradient, geometry._replace(groups=1), size)
    return _per_group(one, geometry, g, kernel)


def _kernel_gradient(x: jax.Array, g: jax.Array, *, geometry: Geometry, window: Pair) -> jax.Array:
    channels = x.shape[-1] // geometry.groups
    if window == (1, 1) or geometry.groups > UNROLLED or (channels == 1 and geometry.groups > 1):
        return _kernel_gradient_by_taps(geometry, window, x, g)
    one = functools.partial(_canonical_kernel_gradient, geometry._replace(groups=1), window)
    return _per_group(one, geometry, x, g)


def _per_group(function: Function, geometry: Geometry, a: jax.Array, b: jax.Array) -> jax.Array:
    if geometry.groups == 1:
        return function(a, b)
    pairs = zip(*(jnp.split(item, geometry.groups, axis=-1) for item in (a, b)), strict=True)
    return jnp.concatenate([function(*pair) for pair in pairs], axis=-1)


def _dense_forward(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    stride, sides, dilation, _ = geometry

    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _canonical(x, kernel, stride=stride, sides=sides, dilation=dilation)

    terms = math.prod(kernel.shape[:3])
    if _spatial(kernel, 0) == (1, 1) or terms > FEW:
        return convolved(x, kernel)
    # Both branches are right, and the first is never taken. XLA does not fuse across a branch:
    # without one it would compute the sum anew for every operation that reads it.
    never = jnp.isnan(kernel[0, 0, 0, 0])
    return lax.cond(never, convolved, functools.partial(_by_taps, geometry), x, kernel)


def _by_taps(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Sum each channel's map (N, H, W) under each tap times the tap's row of the kernel."""
    taps = _taps(geometry, _spatial(kernel, 0), x)
    maps = [tap[..., c : c + 1] for tap in taps for c in range(x.shape[-1])]
    rows = kernel.reshape(len(maps), 1, 1, 1, -1)
    return functools.reduce(operator.add, (one * row for one, row in zip(maps, rows, strict=True)))


def _dense_input_gradient(
    geometry: Geometry, size: Pair, g: jax.Array, kernel: jax.Array
) -> jax.Array:
    columns = math.prod(kernel.shape[:3]) * math.prod(g.shape[:3]) * g.dtype.itemsize
    few = kernel.shape[2] % SMALL != 0 and columns <= COLUMNS
    # Sums of 16-bit terms would be rounded at every tap.
    if few and geometry.stride == (1, 1) and g.dtype.itemsize > 2:
        return _input_gradient_by_columns(geometry, size, g, kernel)
    return _canonical(
        g,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        stride=(1, 1),
        sides=_adjoint_sides(geometry, size, _spatial(g), _spatial(kernel, 0)),
        spread=geometry.stride,
        dilation=geometry.dilation,
    )


def _input_gradient_by_columns(
    geometry: Geometry, size: Pair, g: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Multiply g with every tap at once, then add each tap's map where the tap lies (stride 1).

    Eigen's convolution computes its features by sixteens and wastes the rest. With the batch
    innermost the sums are over whole vectors however few the channels.
    """
    (kh, kw, channels, features), (rows, columns) = kernel.shape, _spatial(g)
    (dh, dw), ((top, _), (left, _)) = geometry.dilation, geometry.sides
    maps = g.transpose(3, 1, 2, 0)
    taps = lax.dot(kernel.reshape(-1, features), maps.reshape(features, -1))
    taps = taps.reshape(kh, kw, channels, *maps.shape[1:])
    dx = jnp.zeros((channels, rows + (kh - 1) * dh, columns + (kw - 1) * dw, len(g)), g.dtype)
    for i, j in itertools.product(range(kh), range(kw)):
        place = (0, i * dh, j * dw, 0)
        under = lax.dynamic_slice(dx, place, taps.shape[2:])
        dx = lax.dynamic_update_slice(dx, under + taps[i, j], place)
    return dx[:, top : top + size[0], left : left + size[1]].transpose(3, 1, 2, 0)


def _canonical_kernel_gradient(
    geometry: Geometry, window: Pair, x: jax.Array, g: jax.Array
) -> jax.Array:
    """Convolve x with g as the kernel: channels take the part of the batch and the reverse.

    Fused with what makes x, as batch norm and rectifier, the transposition would be their loop in
    its order, without vectors; of a stored x it is a copy.
    """
    stride, sides, dilation, _ = geometry
    gradient = _canonical(
        apart(x).transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        stride=dilation,
        sides=[
            (lo, (k - 1) * d + (m - 1) * s + 1 - n - lo)
            for n, m, k, s, d, (lo, _) in zip(
                _spatial(x), _spatial(g), window, stride, dilation, sides, strict=True
            )
        ],
        dilation=stride,
    )
    return gradient.transpose(1, 2, 0, 3)


def _canonical(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair,
    sides: Sequence[Pair],
    spread: Pair = (1, 1),
    dilation: Pair,
) -> jax.Array:
    """Convolve in canonical layout by way of Eigen; `spread` puts spread - 1 zeros between pixels.

    XLA (jaxlib 0.10) hands convolutions to YNNPACK, which is up to 3 times slower but for few
    features and short sums, and takes none with spread maps. Spreading the rows of map, kernel,
    border and stride alike by 2 changes neither a product nor a sum, since no tap falls on the
    zeros, and costs Eigen next to nothing.
    """
    few = kernel.shape[-1] <= SMALL and math.prod(kernel.shape[:3]) <= SHORT
    if spread == (1, 1) and not few:
        stride, spread, dilation = ((2 * a, b) for a, b in (stride, spread, dilation))
        sides = [(2 * sides[0][0], 2 * sides[0][1]), sides[1]]
    return lax.conv_general_dilated(
        x,
        kernel,
        stride,
        sides,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=LAYOUT,
    )


def _adjoint_sides(
    geometry: Geometry, size: Pair, outputs: Pair, window: Pair
) -> list[tuple[int, int]]:
    """Return how far g, spread by the stride, grows so that the flipped kernel returns `size`."""
    sides = []
    for n, m, k, s, d, (lo, _) in zip(
        size, outputs, window, geometry.stride, geometry.dilation, geometry.sides, strict=True
    ):
        before = (k - 1) * d - lo
        sides.append((before, n + lo - (m - 1) * s - 1))
    return sides


def _depthwise(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Sum shifted maps: one channel a group, `D / C` features from each."""
    x = jnp.repeat(x, kernel.shape[-1] // x.shape[-1], axis=-1)
    taps = _taps(geometry, _spatial(kernel, 0), x)
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    return functools.reduce(operator.add, (tap * w for tap, w in zip(taps, weights, strict=True)))


def _depthwise_input_gradient(
    geometry: Geometry, size: Pair, g: jax.Array, kernel: jax.Array
) -> jax.Array:
    sides = _adjoint_sides(geometry, size, _spatial(g), _spatial(kernel, 0))
    spread = [(*side, step - 1) for side, step in zip(sides, geometry.stride, strict=True)]
    g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    dense = geometry._replace(stride=(1, 1), sides=((0, 0), (0, 0)))
    dx = _depthwise(dense, g, jnp.flip(kernel, (0, 1)))
    return jnp.sum(dx.reshape(*dx.shape[:-1], geometry.groups, -1), axis=-1)


def _kernel_gradient_by_taps(
    geometry: Geometry, window: Pair, x: jax.Array, g: jax.Array
) -> jax.Array:
    """One matrix product a tap, of the map under the tap with g."""
    depthwise = x.shape[-1] == g.shape[-1] == geometry.groups

    def product(tap: jax.Array) -> jax.Array:
        if depthwise:
            return jnp.sum(tap * g, axis=(0, 1, 2))
        tap, part = (a.reshape(*a.shape[:3], geometry.groups, -1) for a in (tap, g))
        return jnp.einsum("nhwgc,nhwgd->cgd", tap, part)

    products = jnp.stack([product(tap) for tap in _taps(geometry, window, x)])
    return products.reshape(*window, x.shape[-1] // geometry.groups, g.shape[-1])


def _taps(geometry: Geometry, window: Pair, x: jax.Array) -> list[jax.Array]:
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    x = jnp.pad(x, [(0, 0), *geometry.sides, (0, 0)])
    rows, columns = (
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(_spatial(x), window, (sh, sw), (dh, dw), strict=True)
    )
    places = [(i * dh, j * dw) for i in range(window[0]) for j in range(window[1])]
    return [pads.tap(x, place, (rows, columns), (sh, sw)) for place in places]


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def _spatial(x: jax.Array, axis: int = 1) -> Pair:
    return x.shape[axis], x.shape[axis + 1]


def _declared(
    name: str, stock: Function, cpu: Function, transposes: Mapping[int, Function], *, to_map: bool
) -> Function:
    """Return the map whose forms these are, of arguments with any leading axes.

    to_map: the result is a map, with the leading axes of the first argument, and not a kernel.
    """

    def on_batch(form: Function) -> Function:
        def function(a: jax.Array, b: jax.Array, **static: Any) -> jax.Array:
            y = form(_flat(a), _flat(b), **static)
            return y.reshape(*a.shape[:-3], *y.shape[1:]) if to_map else y

        return function

    def mapped(
        args: Sequence[jax.Array], axes: Sequence[int | None], **static: Any
    ) -> tuple[jax.Array, int]:
        one = functools.partial(call, **static)

        def in_turn(*args: jax.Array) -> jax.Array:
            return lax.map(lambda pair: one(*pair), args)

        if to_map and axes[1] is None:
            return one(*to_front(args[:1], axes[:1]), args[1]), 0
        # A mapped kernel cannot join the batch. JAX's form of many takes a CPU 100 times as long.
        args = to_front(args, axes)
        if len(args[0]) <= UNROLLED:
            return jnp.stack([one(*pair) for pair in zip(*args, strict=True)]), 0
        at_once = jax.vmap(functools.partial(on_batch(stock), **static))
        return lax.platform_dependent(*args, cpu=in_turn, default=at_once), 0

    call = multilinear(name, on_batch(stock), transposes, cpu=on_batch(cpu), batch=mapped)
    return call


_product: Function = _declared(
    "conv",
    _stock,
    _forward,
    {
        0: lambda g, x, kernel, *, geometry: _from_kernel(
            g, kernel, geometry=geometry, size=_spatial(x, -3)
        ),
        1: lambda g, x, kernel, *, geometry: _from_maps(
            x, g, geometry=geometry, window=_spatial(kernel, 0)
        ),
    },
    to_map=True,
)
_from_kernel: Function = _declared(
    "conv_input_gradient",
    _stock_input_gradient,
    _input_gradient,
    {
        0: lambda x, g, kernel, *, geometry, size: _product(x, kernel, geometry=geometry),
        1: lambda x, g, kernel, *, geometry, size: _from_maps(
            x, g, geometry=geometry, window=_spatial(kernel, 0)
        ),
    },
    to_map=True,
)
_from_maps: Function = _declared(
    "conv_kernel_gradient",
    _stock_kernel_gradient,
    _kernel_gradient,
    {
        0: lambda kernel, x, g, *, geometry, window: _from_kernel(
            g, kernel, geometry=geometry, size=_spatial(x, -3)
        ),
        1: lambda kernel, x, g, *, geometry, window: _product(x, kernel, geometry=geometry),
    },
    to_map=False,
)

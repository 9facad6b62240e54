"""Does a network fit an image? Traced, not computed: (net, image_shape) -> an error or nothing.

fit.check(net, (28, 28, 1))           # ValueError: window: (3, 3) is larger than the map ...
fit.smallest(net, channels=1)         # 63: the side of the smallest square image that fits
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

SHIFTS = ("train_shift", "eval_shift")


def check(net: nn.Module, image_shape: tuple[int, ...], *, windows: bool = False) -> None:
    """Trace net on one image (H, W, C); ValueError, in one line, where it does not fit.

    The line says which image would be large enough, where that is what is wrong. A pool's stride
    must not be larger than its map. Its window may be, where padding allows it: published networks
    have such on small images. With `windows` none may, since one that was asked for and is larger
    than the map is a slip.
    """
    try:
        _trace(net, image_shape, windows)
    except ValueError as error:
        least = smallest(net, image_shape[-1], windows=windows)
        if least is None or min(image_shape[:2]) >= least:
            raise
        hint = f"the smallest square image is {least} x {least}"
        raise ValueError(f"{error}; {hint}") from error


def check_shapes(num_classes: Any, image_shape: Any) -> None:
    """Raise ValueError unless these are a number of classes and an image's (H, W, C)."""
    if not _counts(num_classes):
        raise ValueError(f"num_classes: expected an int >= 1, got {num_classes!r}")
    sizes = isinstance(image_shape, tuple | list) and len(image_shape) == 3
    if not sizes or not all(map(_counts, image_shape)):
        raise ValueError(f"image_shape: expected (H, W, C), ints >= 1, got {image_shape!r}")


def check_shifts(settings: Any, image_shape: tuple[int, ...]) -> None:
    """Raise ValueError where a shift that a Config changed leaves nothing of an image."""
    longest = max(image_shape[:2]) - 1
    for field in dataclasses.fields(settings):
        pixels = getattr(settings, field.name)
        changed = field.name in SHIFTS and pixels not in (None, field.default)
        if changed and pixels > longest:
            raise ValueError(
                f"{field.name}: expected at most {longest} pixels on {tuple(image_shape)} images, "
                f"of which more leaves nothing, got {pixels}"
            )


def _counts(value: Any) -> bool:
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    return whole and operator.index(value) >= 1


def smallest(net: nn.Module, channels: int, *, windows: bool = False) -> int | None:
    """Return the side of the smallest square image that `check` lets pass, None up to 1024 pixels.

    Powers of 2 and of 3 are tried first, which strides of 2, 3, 4 and 6 divide; below the first one
    that fits the border is searched as if every larger image fitted too.
    """

    def fitting(side: int) -> bool:
        return fits(net, (side, side, channels), windows=windows)

    sides = sorted({2**k for k in range(11)} | {3**k for k in range(7)})
    first = next((i for i, side in enumerate(sides) if fitting(side)), None)
    if first is None:
        return None
    low, high = (sides[first - 1] if first else 0), sides[first]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fitting(middle) else (middle, high)
    return high


def fits(net: nn.Module, image_shape: tuple[int, ...], *, windows: bool = False) -> bool:
    """Return whether `check` lets an image (H, W, C) pass."""
    try:
        _trace(net, image_shape, windows)
    except ValueError:
        return False
    return True


def _trace(net: nn.Module, image_shape: tuple[int, ...], windows: bool) -> None:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        with nn.intercept_methods(_refuse_larger_than_map("stride", *["window"] * windows)):
            jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _refuse_larger_than_map(*names: str) -> Callable[..., Any]:
    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__" and hasattr(context.module, "stride"):
            for name in names:
                _no_larger(name, getattr(context.module, name, None), args[0].shape[-3:-1])
        return call(*args, **kwargs)

    return intercept


def _no_larger(name: str, extent: tuple[int, int] | None, size: tuple[int, ...]) -> None:
    if extent and (extent[0] > size[0] or extent[1] > size[1]):
        raise ValueError(f"{name}: {extent} is larger than the map {size} it slides over")

"""Does a network fit an image? Traced, not computed: (net, image_shape) -> an error or nothing.

fit.check(net, (28, 28, 1))           # ValueError: window: (3, 3) is larger than the map ...
fit.smallest(net, channels=1)         # 63: the side of the smallest square image that fits
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def check(net: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Trace net on one image (H, W, C); ValueError, in one line, where it does not fit.

    A pool's stride must not be larger than its map; its window may be, where padding allows it.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        with nn.intercept_methods(_refuse_larger_than_map):
            jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def smallest(net: nn.Module, channels: int) -> int | None:
    """Return the side of the smallest square image that fits, None up to 1024 pixels.

    Powers of 2 and of 3 are tried first, which strides of 2, 3, 4 and 6 divide; below the first one
    that fits the border is searched as if every larger image fitted too.
    """
    sides = sorted({2**k for k in range(11)} | {3**k for k in range(7)})
    fits = next((i for i, side in enumerate(sides) if _fits(net, side, channels)), None)
    if fits is None:
        return None
    low, high = (sides[fits - 1] if fits else 0), sides[fits]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _fits(net, middle, channels) else (middle, high)
    return high


def _fits(net: nn.Module, side: int, channels: int) -> bool:
    try:
        check(net, (side, side, channels))
    except ValueError:
        return False
    return True


def _refuse_larger_than_map(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    pool = context.module
    if context.method_name == "__call__" and hasattr(pool, "method") and hasattr(pool, "stride"):
        size, stride = args[0].shape[-3:-1], pool.stride or (1, 1)
        if stride[0] > size[0] or stride[1] > size[1]:
            raise ValueError(f"stride: {stride} is larger than the map {size} it slides over")
    return call(*args, **kwargs)

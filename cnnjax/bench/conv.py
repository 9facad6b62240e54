"""Convolution beside `lax.conv_general_dilated` and PyTorch channels_last, batch 128, float32.

The passes: forward; the gradient of the kernel; that of the input; both with the forward pass; and
the kernel's gradient once more as two steps of a `lax.scan`, per step, beside ours outside of it.
Once, all of 64 images with a kernel each, by `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax.bench import torch
from cnnjax.bench.measure import Candidate, Cell, compiled, queued
from cnnjax.ops.conv import conv

SHAPES = ((32, 3, 32), (16, 32, 64), (8, 64, 128), (28, 1, 6), (14, 6, 16))
KERNELS = (3, 5)
BATCH, STEPS = 128, 2
KERNELS_MAPPED = 64
GROUP = ("pass",)

Function = Callable[..., object]


def cells() -> Iterator[Cell]:
    """Yield every shape x kernel x pass, then many kernels at once."""
    for size, channels, features in SHAPES:
        for k in KERNELS:
            sizes = (size, channels, features, k)
            where = {"map": f"{size}x{size}x{channels}->{features}", "kernel": f"{k}x{k}"}
            for name in PASSES:
                yield Cell({**where, "pass": name}, partial(_candidates, name, *sizes))
            yield Cell({**where, "pass": "kernel gradient in scan"}, partial(_scanned, *sizes))
    where = {"map": f"{KERNELS_MAPPED} of 16x16x8->16", "kernel": "3x3"}
    yield Cell({**where, "pass": "kernels mapped"}, _mapped)


def _inputs(
    size: int, channels: int, features: int, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(0), (BATCH, size, size, channels))
    kernel = jax.random.normal(jax.random.key(1), (k, k, channels, features))
    return x, kernel, jax.random.normal(jax.random.key(2), (BATCH, size, size, features))


def _candidates(
    name: str, size: int, channels: int, features: int, k: int
) -> dict[str, Candidate | str]:
    arrays, work = _inputs(size, channels, features, k), PASSES[name]
    return {
        "cnnjax": compiled(work(conv), *arrays),
        "lax": compiled(work(stock), *arrays),
        "torch": _torch(name, arrays[0].shape, features, k),
    }


def stock(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return what a JAX user writes."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def _scanned(size: int, channels: int, features: int, k: int) -> dict[str, Candidate | str]:
    """Return ours in a scan of two steps; ours twice outside; JAX's own in the same scan."""
    arrays = _inputs(size, channels, features, k)

    def scan(convolve: Function) -> Function:
        step = kernel_gradient(convolve)

        def run(x: jax.Array, kernel: jax.Array, g: jax.Array) -> object:
            def body(carry: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
                return carry + step(x, kernel, g * scale), None

            return lax.scan(body, jnp.zeros_like(kernel), jnp.arange(1.0, 1.0 + STEPS))[0]

        return run

    def outside(x: jax.Array, kernel: jax.Array, g: jax.Array) -> object:
        step = kernel_gradient(conv)
        return sum(step(x, kernel, g * scale) for scale in range(1, 1 + STEPS))

    return {
        "cnnjax": compiled(scan(conv), *arrays),
        "cnnjax outside": compiled(outside, *arrays),
        "lax": compiled(scan(stock), *arrays),
    }


def _mapped() -> dict[str, Candidate | str]:
    def arrays(*shapes: tuple[int, ...]) -> Iterator[jax.Array]:
        for number, shape in enumerate(shapes):
            yield jax.random.normal(jax.random.key(number), (KERNELS_MAPPED, *shape))

    given = tuple(arrays((1, 16, 16, 8), (3, 3, 8, 16), (1, 16, 16, 16)))
    return {
        "cnnjax": compiled(everything(jax.vmap(conv)), *given),
        "lax": compiled(everything(jax.vmap(stock)), *given),
    }


def forward(convolve: Function) -> Function:
    """Return (x, kernel, g) -> y."""
    return lambda x, kernel, g: convolve(x, kernel)


def kernel_gradient(convolve: Function) -> Callable[..., jax.Array]:
    """Return (x, kernel, g) -> gradient of the kernel."""
    return lambda x, kernel, g: jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](g)[0]


def input_gradient(convolve: Function) -> Function:
    """Return (x, kernel, g) -> gradient of the input."""
    return lambda x, kernel, g: jax.vjp(lambda x: convolve(x, kernel), x)[1](g)[0]


def everything(convolve: Function) -> Function:
    """Return (x, kernel, g) -> (y, both gradients)."""

    def run(x: jax.Array, kernel: jax.Array, g: jax.Array) -> object:
        y, pull = jax.vjp(convolve, x, kernel)
        return y, pull(g)

    return run


PASSES: dict[str, Callable[[Function], Function]] = {
    "forward": forward,
    "kernel gradient": kernel_gradient,
    "input gradient": input_gradient,
    "forward+backward": everything,
}


def _torch(name: str, shape: tuple[int, ...], features: int, k: int) -> Candidate | str:
    module = torch.torch()
    if module is None:
        return torch.ABSENT
    x = torch.image(shape)
    weight = module.randn(features, shape[-1], k, k, device=torch.device())
    weight = weight.to(memory_format=module.channels_last)
    g = torch.image((*shape[:3], features))
    half = k // 2

    def gradients(inputs: bool, weights: bool) -> object:
        return module.ops.aten.convolution_backward(
            g, x, weight, None, [1, 1], [half, half], [1, 1], False, [0, 0], 1,
            [inputs, weights, False],
        )  # fmt: skip

    def forward() -> object:
        with module.no_grad():
            return module.nn.functional.conv2d(x, weight, padding=half)

    runs = {
        "forward": forward,
        "kernel gradient": lambda: gradients(False, True),
        "input gradient": lambda: gradients(True, False),
        "forward+backward": lambda: (forward(), gradients(True, True)),
    }
    return queued(runs[name], torch.wait)

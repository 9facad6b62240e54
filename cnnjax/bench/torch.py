"""PyTorch as a candidate, where it is installed (extra `bench`): channels_last, same threads.

It computes where JAX does: on the CPU, or on the same GPU if its build has CUDA. There both round
the factors of float32 products to TF32, which is JAX's default and set here for PyTorch.

candidate = forward_backward(lambda F, x: F.max_pool2d(x, 2), shape=(128, 32, 32, 64))
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from cnnjax.bench.measure import Candidate, queued
from cnnjax.environment import threads

ABSENT = "no PyTorch for this device is installed (pip install 'cnnjax[bench]')"


@cache
def torch() -> Any:
    """Return the module `torch` with its threads set, or None."""
    try:
        module = importlib.import_module("torch")
    except ImportError:
        return None
    module.set_num_threads(threads())
    if device() == "cuda":
        if not module.cuda.is_available():
            return None
        module.set_float32_matmul_precision("high")
        module.backends.cudnn.allow_tf32 = True
        module.backends.cudnn.benchmark = True  # it picks algorithms by trial, as XLA does
    return module


def device() -> str:
    """Return PyTorch's name of the device on which JAX computes."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def wait(result: object) -> object:
    """Return the result when it is computed."""
    if device() == "cuda":
        torch().cuda.synchronize()
    return result


def version() -> str:
    """Return PyTorch's version, or why there is none."""
    return torch().__version__ if torch() else ABSENT


def image(shape: tuple[int, ...], *, gradient: bool = False) -> Any:
    """Return a random NHWC-strided tensor for an NHWC `shape` (PyTorch says NCHW)."""
    n, h, w, c = shape
    x = torch().randn(n, c, h, w, device=device()).to(memory_format=torch().channels_last)
    return x.requires_grad_(gradient)


def forward(function: Callable[[Any, Any], Any], *shapes: tuple[int, ...]) -> Candidate | str:
    """Return function(torch.nn.functional, *images) as a candidate, without a graph."""
    if torch() is None:
        return ABSENT
    images = [image(shape) for shape in shapes]

    def run() -> object:
        with torch().no_grad():
            return function(torch().nn.functional, *images)

    return queued(run, wait)


def forward_backward(
    function: Callable[[Any, Any], Any], *shapes: tuple[int, ...]
) -> Candidate | str:
    """Return function and the gradients of its images as a candidate."""
    if torch() is None:
        return ABSENT
    images = [image(shape, gradient=True) for shape in shapes]
    seed = torch().randn_like(function(torch().nn.functional, *images).detach())

    def run() -> object:
        y = function(torch().nn.functional, *images)
        return torch().autograd.grad(y, images, seed)

    return queued(run, wait)

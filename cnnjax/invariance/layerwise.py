"""Layer by layer: how every feature map of any Linen net behaves when the image moves.

    maps = feature_maps(net, variables, x)                      # {path: (N, H', W', C)}
    errors = equivariance_errors(net, variables, x, (3, 1))     # {path: relative error}
    first_break(net, variables, x)                              # path or None
    downsampling(net, variables, x)                             # {path: aliasing, gain, ...}

Maps are what modules return (Flax's `capture_intermediates`), in the order they are called.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance.logits import InEvaluation, images, one_line_errors, told
from cnnjax.invariance.sites import is_conv, is_pool, is_site, is_transposed, name, pair
from cnnjax.layers.pooling import POOLS
from cnnjax.ops import shifts as moves

BREAKS = 1e-4


def feature_maps(net: nn.Module, variables: Any, x: Any) -> dict[str, jax.Array]:
    """Return every module's output map (N, H', W', C) by path, in the order of the calls."""
    order: list[str] = []
    arrays = _outputs(net, order, variables, images(x))
    return dict(zip(order, arrays, strict=True))


def _outputs(net: nn.Module, order: list[str], variables: Any, x: jax.Array) -> list[jax.Array]:
    found: list[jax.Array] = []

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        y = result[0] if isinstance(result, tuple) else result
        if context.method_name == "__call__" and getattr(y, "ndim", 0) == 4:
            path = name(context.module)
            times = sum(known.split("#")[0] == path for known in order)
            order.append(f"{path}#{times}" if times else path)
            found.append(y)
        return result

    with nn.intercept_methods(note):
        InEvaluation(net)(variables, x)
    return found


def equivariance_errors(
    net: nn.Module, variables: Any, x: Any, offset: Any, family: str = "circular"
) -> dict[str, float]:
    """Return each map's relative error ||F(T x) - T' F(x)|| / ||F(x)|| for one shift (2,).

    T' moves the map by offset / stride, by band-limited interpolation where that is no whole number
    of its pixels, in the same family; fractional shifts wrap around. The Fourier comparator takes
    the place of Zhang's (2019) repeated bilinear upsampling.
    """
    x = images(x)
    offset = moves.check([offset], family)[0]
    still = feature_maps(net, variables, x)
    shifted = feature_maps(net, variables, moves.move(x, offset, family))
    errors = {}
    for path, y in still.items():
        step = offset * np.asarray(y.shape[1:3]) / np.asarray(x.shape[1:3])
        whole = np.all(step == np.round(step)) and family != "fourier"
        expected = moves.move(
            y, step.astype(int) if whole else step, family if whole else "fourier"
        )
        size = float(jnp.linalg.norm(y)) or 1.0
        errors[path] = float(jnp.linalg.norm(shifted[path] - expected)) / size
    return errors


def first_break(
    net: nn.Module, variables: Any, x: Any, *, count: int = 8, seed: int = 0
) -> str | None:
    """Return the first module whose map is no roll of its unshifted self, for some circular shift.

    The roll is free, so that samplers which select their phase pass; `count` random shifts are
    tried. None where every map moves with the image.
    """
    x = images(x)[:2]
    size = np.asarray(x.shape[1:3])
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[(1, 0), (0, 1)], rng.integers(1, np.maximum(size, 2), (count, 2))])
    order: list[str] = []
    run = jax.jit(functools.partial(_outputs, net, order))
    still = [np.asarray(y) for y in run(variables, x)]
    worst = np.zeros(len(still))
    for offset in offsets:
        shifted = run(variables, moves.move(x, offset))
        for k, (a, b) in enumerate(zip(still, shifted, strict=True)):
            worst[k] = max(worst[k], _distance_up_to_roll(a, np.asarray(b)))
    broken = np.flatnonzero(worst > BREAKS)
    return order[broken[0]] if len(broken) else None


def _distance_up_to_roll(a: np.ndarray, b: np.ndarray) -> float:
    """Return max over images of the smallest max |b - roll(a)| over the scale of a."""
    scale = max(float(np.abs(a).max()), 1e-30)
    spectrum = np.conj(np.fft.fft2(a, axes=(1, 2))) * np.fft.fft2(b, axes=(1, 2))
    match = np.fft.ifft2(spectrum.sum(axis=-1), axes=(1, 2)).real
    distances = []
    for one, other, score in zip(a, b, match, strict=True):
        # Rounding can rank equal matches in any order, so the best few are all tried.
        best = np.argsort(score.ravel())[::-1][:4]
        rolls = (np.roll(one, np.unravel_index(k, score.shape), axis=(0, 1)) for k in best)
        distances.append(min(float(np.abs(other - roll).max()) for roll in rolls))
    return max(distances) / scale


def tie_count(net: nn.Module, variables: Any, x: Any) -> int:
    """Return how many tied phases the polyphase sites of net met on x."""
    return int(sum(np.sum(v) for calls in _sown(net, variables, x, "ties").values() for v in calls))


def phase_histograms(net: nn.Module, variables: Any, x: Any) -> dict[str, np.ndarray]:
    """Return how often each phase (row-major, sh * sw of them) was kept, by polyphase site."""
    strides: dict[str, tuple[int, int]] = {}

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if is_pool(context.module):
            strides[name(context.module)] = pair(context.module.stride)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        phases = _sown(net, variables, x, "phase")
    return {
        path: np.bincount(np.concatenate(kept), minlength=math.prod(strides[path]))
        for path, kept in phases.items()
    }


def _sown(net: nn.Module, variables: Any, x: Any, key: str) -> dict[str, list[np.ndarray]]:
    """Return what each module sowed under `key`, call by call, as vectors."""
    apply: Any = net.apply
    run = jax.jit(functools.partial(apply, mutable=["intermediates"], **told(net)))
    with one_line_errors():
        _, state = run(variables, images(x))
    found: dict[str, list[np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.get("intermediates", {})):
        keys = [getattr(k, "key", None) for k in path]
        if key in keys:
            own = found.setdefault("/".join(map(str, keys[: keys.index(key)])), [])
            own.append(np.asarray(leaf).ravel())
    return found


def downsampling(net: nn.Module, variables: Any, x: Any) -> dict[str, dict[str, float]]:
    """Return what every pool or convolution with a stride does to its input's spectrum.

    `aliasing` is the share of the energy of the site's stride-1 map that lies at or above the new
    Nyquist frequency and folds down (methods without such a form: of their input); the mean over
    each image's channel does not count. `gain` is the output's root mean square over the input's.
    """
    found: dict[str, dict[str, float]] = {}

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        result, module = call(*args, **kwargs), context.module
        known = context.method_name == "__call__" and is_site(module)
        if known and args and args[0].ndim == 4 and not is_transposed(module):
            stride = pair(module.stride if is_pool(module) else module.strides)
            if stride != (1, 1):
                y = result[0] if isinstance(result, tuple) else result
                dense = _before_sampling(module, args[0])
                found[name(module)] = {
                    "aliasing": aliasing_ratio(dense, stride),
                    "gain": float(_rms(y) / jnp.maximum(_rms(args[0]), 1e-30)),
                }
        return result

    with nn.intercept_methods(note):
        InEvaluation(net)(variables, images(x))
    return found


def _before_sampling(module: Any, x: jax.Array) -> jax.Array:
    if is_conv(module):
        dense = module.clone(strides=(1, 1), parent=None, name=None)
        return dense.apply(module.variables, x)
    if not POOLS[module.method].has_dense or module.padding == "SAME":
        return x
    return module.dense(x)


def aliasing_ratio(x: Any, stride: tuple[int, int]) -> float:
    """Return the share of the non-constant energy of x (N, H, W, C) at or above 1 / (2 stride)."""
    x = np.asarray(x, float)
    energy = np.abs(np.fft.fft2(x, axes=(1, 2))) ** 2
    energy[:, 0, 0] = 0
    rows = np.abs(np.fft.fftfreq(x.shape[1])) >= 0.5 / stride[0]
    columns = np.abs(np.fft.fftfreq(x.shape[2])) >= 0.5 / stride[1]
    rows, columns = rows & (stride[0] > 1), columns & (stride[1] > 1)
    high = rows[:, None] | columns[None]
    total = energy.sum()
    return float(energy[:, high].sum() / total) if total else 0.0


def goodfellow_scores(
    net: nn.Module, variables: Any, x: Any, offsets: Any, *, rate: float = 0.01, top: float = 0.2
) -> dict[str, float]:
    """Return each map's invariance score (Goodfellow et al. 2009), mean of its `top` units.

    A unit fires above the threshold that it exceeds on `rate` of the images x; its score is its
    rate of firing on the moved versions of the images on which it fires, over `rate`: 1 / rate at
    most. A unit is one channel at one place of the map.
    """
    x = images(x)
    still = {
        k: np.asarray(v).reshape(len(x), -1) for k, v in feature_maps(net, variables, x).items()
    }
    fires: dict[str, np.ndarray] = {}
    limits = {k: np.quantile(v, 1 - rate, axis=0, method="lower") for k, v in still.items()}
    offsets = moves.check(offsets, "circular")
    for offset in offsets:
        for path, y in feature_maps(net, variables, moves.move(x, offset)).items():
            on = np.asarray(y).reshape(len(x), -1) > limits[path]
            fires[path] = fires.get(path, 0) + on * (still[path] > limits[path])
    scores = {}
    for path, count in fires.items():
        awake = (still[path] > limits[path]).sum(axis=0)
        local = count.sum(axis=0)[awake > 0] / awake[awake > 0] / len(offsets)
        best = np.sort(local)[::-1][: max(1, int(top * len(local)))]
        scores[path] = float(best.mean() / rate) if len(local) else 0.0
    return scores


def receptive_field(net: nn.Module, variables: Any, x: Any, path: str) -> np.ndarray:
    """Return the effective receptive field (H, W) of the central place of a map, summing to 1.

    Mean |gradient| of the sum of its channels with respect to the input (Luo et al. 2016).
    """
    x = images(x).astype(jnp.float32)

    def centre(x: jax.Array) -> jax.Array:
        maps = feature_maps(net, variables, x)
        if path not in maps:
            raise ValueError(f"path: no map {path!r}; choose from {', '.join(maps)}")
        y = maps[path]
        return jnp.sum(y[:, y.shape[1] // 2, y.shape[2] // 2])

    field = np.abs(np.asarray(jax.grad(centre)(x))).mean(axis=(0, 3))
    return field / max(field.sum(), 1e-30)


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x.astype(jnp.float32))))

"""Augmentation, one image (H, W, C) -> (H, W, C) of the same dtype, and chains of it.

    chain = parse("crop:area=0.5+flip+mixup:alpha=0.4")    # rows applied in this order
    y = augment(chain, key, x)                  # AUGMENTATIONS, x (N, H, W, C), a draw an image
    y, targets = mix(chain, key, y, targets)    # MIXINGS, targets (N, K)

Pixel values are 0..255 (uint8, or floats in the same range); whole numbers are rounded and clipped.
All randomness is the key. At zero strength everything is the identity, bit for bit in uint8.

| row | what it draws | zero strength |
|---|---|---|
| shift:pixels=4:boundary=zeros | rows and columns up to `pixels` (He 2016: pad, crop) | pixels=0 |
| crop:area=0.25:ratio=1.33 | a box to resize (Szegedy 2015) | area=1:ratio=1 |
| flip:chance=0.5:vertical=false | left and right (above and below) exchanged | chance=0 |
| rotate:degrees=15 | an angle from -degrees to degrees | degrees=0 |
| scale:factor=1.25 | a factor from 1 / factor to factor, log-uniform | factor=1 |
| colour:brightness=0.2:contrast=0.2:saturation=0.2 | factors from 1 - s to 1 + s | all 0 |
| cutout:size=8 | the centre of a black square (DeVries and Taylor 2017) | size=0 |
| randaugment:count=2:strength=9 | `count` rows of OPERATIONS (Cubuk 2020) | strength=0 |
| mixup:alpha=0.2 | a weight from Beta(alpha, alpha) (Zhang 2018) | alpha=0 |
| cutmix:alpha=1.0 | a box of another image (Yun 2019) | alpha=0 |
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnnjax import spec
from cnnjax.ops import shifts

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
STRONGEST = 30.0  # RandAugment's scale of strengths ends here


def as_pixels(values: jax.Array, dtype: Any) -> jax.Array:
    """Return float pixel values in `dtype`: whole-number types are rounded and clipped."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return values.astype(dtype)
    info = jnp.iinfo(dtype)
    return jnp.clip(jnp.round(values), info.min, info.max).astype(dtype)


def shift(key: jax.Array, image: jax.Array, *, pixels: int, boundary: str) -> jax.Array:
    """Move by whole pixels; `boundary` is one of `shifts.BOUNDARIES`."""
    offset = jax.random.randint(key, (2,), -pixels, pixels + 1)
    return shifts.translate(image, offset, boundary=boundary)


def crop(key: jax.Array, image: jax.Array, *, area: float, ratio: float) -> jax.Array:
    """Cut a box of `area` of the image at least and resize it, bilinear.

    ratio: the box's width over its height is 1 / ratio to ratio times the image's; where a side
    would be longer than the image's it is cut to that.
    """
    one, two, three = jax.random.split(key, 3)
    share = jax.random.uniform(one, minval=area, maxval=1.0)
    stretch = jnp.exp(jnp.log(ratio) * jax.random.uniform(two, minval=-0.5, maxval=0.5))
    sides = jnp.minimum(jnp.sqrt(share) * jnp.stack([1 / stretch, stretch]), 1.0)
    size = jnp.array(image.shape[:2], jnp.float32)
    corner = jax.random.uniform(three, (2,)) * (1 - sides) * size
    rows, columns = (
        corner[axis] + (jnp.arange(image.shape[axis]) + 0.5) * sides[axis] - 0.5 for axis in (0, 1)
    )
    grid = jnp.meshgrid(rows, columns, indexing="ij")
    values = shifts.bilinear(image.astype(jnp.float32), *grid, boundary="edge")
    return as_pixels(values, image.dtype)


def flip(key: jax.Array, image: jax.Array, *, chance: float, vertical: bool) -> jax.Array:
    """Exchange left and right by chance; with `vertical` above and below too, on its own draw."""
    draws = jax.random.bernoulli(key, chance, (2,))
    image = jnp.where(draws[0], mirror(image), image)
    return jnp.where(draws[1], image[::-1], image) if vertical else image


def mirror(image: jax.Array) -> jax.Array:
    """Exchange left and right."""
    return image[:, ::-1]


def rotate(key: jax.Array, image: jax.Array, *, degrees: float) -> jax.Array:
    """Turn about the centre, bilinear; zeros come in."""
    return _affine(image, degrees=jax.random.uniform(key, minval=-degrees, maxval=degrees))


def scale(key: jax.Array, image: jax.Array, *, factor: float) -> jax.Array:
    """Enlarge or shrink about the centre, bilinear; zeros come in."""
    exponent = jax.random.uniform(key, minval=-1.0, maxval=1.0)
    return _affine(image, factor=jnp.exp(exponent * jnp.log(factor)))


def _affine(image: jax.Array, **how: Any) -> jax.Array:
    return as_pixels(shifts.affine(image.astype(jnp.float32), **how), image.dtype)


def colour(
    key: jax.Array, image: jax.Array, *, brightness: float, contrast: float, saturation: float
) -> jax.Array:
    """Change brightness, then contrast, then saturation, each by a factor from 1 - s to 1 + s."""
    reach = jnp.array([brightness, contrast, saturation])
    factors = 1 + reach * jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
    values = brighten(image.astype(jnp.float32), factors[0])
    values = saturate(change_contrast(values, factors[1]), factors[2])
    return as_pixels(values, image.dtype)


def brighten(image: jax.Array, factor: Any) -> jax.Array:
    """Multiply every value."""
    return jnp.clip(image * factor, 0.0, 255.0)


def change_contrast(image: jax.Array, factor: Any) -> jax.Array:
    """Multiply the distance from the image's mean luminance."""
    return jnp.clip(_blend(jnp.mean(luminance(image)), image, factor), 0.0, 255.0)


def saturate(image: jax.Array, factor: Any) -> jax.Array:
    """Multiply the distance from each pixel's luminance; a grey image has none."""
    return jnp.clip(_blend(luminance(image), image, factor), 0.0, 255.0)


def luminance(image: jax.Array) -> jax.Array:
    """Return (H, W, 1): the luminance of three channels, the mean of any other number."""
    if image.shape[-1] != 3:
        return jnp.mean(image, axis=-1, keepdims=True)
    weights = jnp.array(LUMINANCE, image.dtype).reshape((1,) * (image.ndim - 1) + (3,))
    return jnp.sum(image * weights, axis=-1, keepdims=True)


def _blend(origin: jax.Array, image: jax.Array, factor: Any) -> jax.Array:
    # In this form a factor of one leaves every value as it is.
    return image + (factor - 1) * (image - origin)


def cutout(key: jax.Array, image: jax.Array, *, size: int) -> jax.Array:
    """Blacken a square of `size` pixels whose centre is anywhere; it may lie partly outside."""
    centre = jax.random.uniform(key, (2,)) * jnp.array(image.shape[:2])
    return jnp.where(_box(image.shape[:2], centre, (size, size)), 0, image).astype(image.dtype)


def _box(size: tuple[int, ...], centre: jax.Array, extent: Any) -> jax.Array:
    """Return (H, W, 1): which pixels lie inside a box of `extent` about `centre`."""
    inside = []
    for axis in (0, 1):
        start = jnp.round(centre[axis] - extent[axis] / 2)
        place = jnp.arange(size[axis])
        inside.append((place >= start) & (place < start + extent[axis]))
    return (inside[0][:, None] & inside[1][None, :])[..., None]


def _about(image: jax.Array, **how: Any) -> jax.Array:
    return shifts.affine(image, **how)


def _solarize(image: jax.Array, share: jax.Array) -> jax.Array:
    return jnp.where(image > 255.0 * (1 - share), 255.0 - image, image)


def _posterize(image: jax.Array, share: jax.Array) -> jax.Array:
    step = 2.0 ** jnp.round(4 * share)
    return jnp.floor(image / step) * step


def _sharpen(image: jax.Array, factor: jax.Array) -> jax.Array:
    rows, columns = (jnp.pad(image, pad, "edge") for pad in _BORDERS)
    around = rows[:-2] + rows[2:] + columns[:, :-2] + columns[:, 2:]
    return jnp.clip(_blend((around + image) / 5, image, factor), 0.0, 255.0)


def _autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel to 0..255, as PIL.ImageOps.autocontrast does but not truncated."""
    low = jnp.min(image, axis=(0, 1), keepdims=True)
    span = jnp.max(image, axis=(0, 1), keepdims=True) - low
    stretched = (image - low) * 255.0 / jnp.where(span > 0, span, 1.0)
    return jnp.where(span > 0, jnp.minimum(stretched, 255.0), image)


def _equalize(image: jax.Array) -> jax.Array:
    """Spread each channel's rounded values to equal shares, as PIL.ImageOps.equalize does."""
    levels = jnp.clip(jnp.round(image), 0, 255).astype(jnp.int32)
    return jax.vmap(_equalized, in_axes=-1, out_axes=-1)(image, levels)


def _equalized(image: jax.Array, levels: jax.Array) -> jax.Array:
    counts = jnp.zeros(256, jnp.int32).at[levels].add(1)
    below = jnp.cumsum(counts) - counts
    # The pixels below the brightest value, in 255 steps; of one value, or too few, all stay.
    step = below[jnp.max(levels)] // 255
    table = jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255)
    return jnp.where(step > 0, table[levels].astype(image.dtype), image)


def _in_full(change: Callable[[jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """Return an operation that has no strength: all of the change, but at 0 none."""
    return lambda image, share: jnp.where(share == 0, image, change(image))


_BORDERS = [((1, 1), (0, 0), (0, 0)), ((0, 0), (1, 1), (0, 0))]

# RandAugment's operations on float pixels, of the share of full strength, -1 to 1; each is the
# identity at 0.
OPERATIONS: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "identity": lambda image, share: image,
    "rotate": lambda image, share: _about(image, degrees=30.0 * share),
    "scale": lambda image, share: _about(image, factor=jnp.exp2(0.5 * share)),
    "move_rows": lambda image, share: _about(image, offset=(0.3 * share * image.shape[0], 0.0)),
    "move_columns": lambda image, share: _about(image, offset=(0.0, 0.3 * share * image.shape[1])),
    "brightness": lambda image, share: brighten(image, 1 + 0.9 * share),
    "contrast": lambda image, share: change_contrast(image, 1 + 0.9 * share),
    "saturation": lambda image, share: saturate(image, 1 + 0.9 * share),
    "sharpness": lambda image, share: _sharpen(image, 1 + 0.9 * share),
    "solarize": lambda image, share: _solarize(image, jnp.abs(share)),
    "posterize": lambda image, share: _posterize(image, jnp.abs(share)),
    "autocontrast": _in_full(_autocontrast),
    "equalize": _in_full(_equalize),
}


def randaugment(key: jax.Array, image: jax.Array, *, count: int, strength: float) -> jax.Array:
    """Apply `count` operations drawn from OPERATIONS, each at `strength` of 30, either sign.

    Under vmap every image pays for every operation: JAX computes all branches and selects.
    """
    values = image.astype(jnp.float32)
    for index in range(count):
        which, sign = jax.random.split(jax.random.fold_in(key, index))
        share = strength / STRONGEST * jax.random.rademacher(sign, (), jnp.float32)
        choice = jax.random.randint(which, (), 0, len(OPERATIONS))
        values = lax.switch(choice, list(OPERATIONS.values()), values, share)
    return as_pixels(values, image.dtype)


def mixup(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Blend each image and its target with another one's by one weight a batch."""
    order, weight = _partners(key, len(images), alpha)
    values = images.astype(jnp.float32)
    values = _blend(values[order], values, weight)
    return as_pixels(values, images.dtype), _blend(targets[order], targets, weight)


def cutmix(
    key: jax.Array, images: jax.Array, targets: jax.Array, *, alpha: float
) -> tuple[jax.Array, jax.Array]:
    """Put a box of another image into each; targets are blended by the areas that are seen.

    The box has the image's proportions and one place a batch; what lies outside does not count.
    """
    place, mixing = jax.random.split(key)
    order, weight = _partners(mixing, len(images), alpha)
    size = jnp.array(images.shape[1:3])
    centre = jax.random.uniform(place, (2,)) * size
    box = _box(images.shape[1:3], centre, jnp.round(size * jnp.sqrt(1 - weight)))
    seen = 1 - jnp.mean(box, dtype=jnp.float32)
    return jnp.where(box, images[order], images), _blend(targets[order], targets, seen)


def _partners(key: jax.Array, count: int, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Return the image that each is mixed with, (N,), and the weight of its own, ()."""
    permute, draw = jax.random.split(key)
    order = jax.random.permutation(permute, count)
    # Beta(0, 0) is a coin; by convention no strength means no mixing.
    return order, jax.random.beta(draw, alpha, alpha) if alpha else jnp.float32(1.0)


@dataclass(frozen=True)
class Augmentation:
    """One row: a function, its parameters with their defaults, and the ranges of the numbers.

    `function(key, image, **params)`, or in MIXINGS `function(key, images, targets, **params)`.
    """

    function: Callable[..., Any]
    params: Mapping[str, Any]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "shift": Augmentation(shift, {"pixels": 4, "boundary": "zeros"}, {"pixels": (0, 4096)}),
    "crop": Augmentation(
        crop, {"area": 0.25, "ratio": 4 / 3}, {"area": (0.01, 1), "ratio": (1, 8)}
    ),
    "flip": Augmentation(flip, {"chance": 0.5, "vertical": False}, {"chance": (0, 1)}),
    "rotate": Augmentation(rotate, {"degrees": 15.0}, {"degrees": (0, 180)}),
    "scale": Augmentation(scale, {"factor": 1.25}, {"factor": (1, 8)}),
    "colour": Augmentation(
        colour,
        {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        dict.fromkeys(("brightness", "contrast", "saturation"), (0, 1)),
    ),
    "cutout": Augmentation(cutout, {"size": 8}, {"size": (0, 4096)}),
    "randaugment": Augmentation(
        randaugment, {"count": 2, "strength": 9.0}, {"count": (0, 8), "strength": (0, STRONGEST)}
    ),
}
MIXINGS: Mapping[str, Augmentation] = {
    "mixup": Augmentation(mixup, {"alpha": 0.2}, {"alpha": (0, 100)}),
    "cutmix": Augmentation(cutmix, {"alpha": 1.0}, {"alpha": (0, 100)}),
}

Chain = tuple[tuple[str, Mapping[str, Any]], ...]


def parse(text: str) -> Chain:
    """Read "flip+cutout:size=8" into rows and all their parameters; "" is the empty chain.

    Raises ValueError naming the row, the parameter and what is allowed.
    """
    if not isinstance(text, str):
        raise TypeError(f"augment: expected text, got {text!r}")
    return tuple(_row(part) for part in text.split("+")) if text else ()


def _row(text: str) -> tuple[str, Mapping[str, Any]]:
    name, given = spec.parse(text)
    row = spec.find({**AUGMENTATIONS, **MIXINGS}, name, "augment")
    for key, value in given.items():
        if key not in row.params:
            raise ValueError(
                f"augment {name}: unknown parameter {key!r}; {spec.suggest(key, row.params)}"
            )
        default = row.params[key]
        if type(value) is not type(default) and (type(value), type(default)) != (int, float):
            example = spec.format(name, {key: default})
            raise ValueError(
                f"augment {name}: {key}={value}: expected {type(default).__name__}, as in {example}"
            )
        low, high = row.ranges.get(key, (None, None))
        if low is not None and high is not None and not low <= value <= high:
            raise ValueError(f"augment {name}: {key}={value}: expected {low} to {high}")
        if key == "boundary":
            spec.find(dict.fromkeys(shifts.BOUNDARIES), value, "augment shift: boundary")
    return name, {**row.params, **given}


def augment(chain: Chain, key: jax.Array, images: jax.Array) -> jax.Array:
    """Apply the rows of AUGMENTATIONS to every image of (N, H, W, C), each on its own draw."""
    for index, (name, params) in enumerate(chain):
        if name in AUGMENTATIONS:
            one = functools.partial(AUGMENTATIONS[name].function, **params)
            keys = jax.random.split(jax.random.fold_in(key, index), len(images))
            images = jax.vmap(one)(keys, images)
    return images


def mix(
    chain: Chain, key: jax.Array, images: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Apply the rows of MIXINGS to images (N, H, W, C) and targets (N, K), which sum to one."""
    for index, (name, params) in enumerate(chain):
        if name in MIXINGS:
            function = MIXINGS[name].function
            images, targets = function(jax.random.fold_in(key, index), images, targets, **params)
    return images, targets


def mixes(chain: Chain) -> bool:
    """Return whether a chain has a row of MIXINGS, and so needs targets."""
    return any(name in MIXINGS for name, _ in chain)

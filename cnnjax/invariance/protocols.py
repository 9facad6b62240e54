"""Published protocols, quirks included: one net, images, labels -> the figure each paper reports.

    row = PROTOCOLS["aps_cifar"](predict, x, y, seed=0)   # {"consistency": 0.93, ...}
    table = compare(predict, x, y, margin=32)             # all of them beside the exact figures

`predict` maps images (B, H', W', C) to logits (B, classes). Every protocol is an emulator of what
the named code does, random draws, batches and all; the exact figure of the same shift set stands
beside it, so that what is noise, what is quirk and what is the shift set can be told apart.

| name | shift set, boundary | quirk |
|---|---|---|
| adobe224 | {0..31}^2, crop from a larger image | one pair a batch of 8, identical pairs count |
| aps_cifar | {-3..2}^2, circular | one pair a batch of 256; unweighted mean of batch means |
| lps_agreement | {-3..2}^2, zeros (pad 3, crop) | k shifts a batch, all must agree |
| flc_cifar | {0..3}^2, circular | one pair a batch; 1 in 16 pairs is identical |
| tips_fidelity | U{0..H/8}^2, zeros | batch-wide pair; both must be right |
| azulay_diag | 8 one-pixel diagonal steps, canvas | top-1 change and mean absolute change |
| afc_adversarial | {1..m-1}^2, circular | never tests an axis-aligned or a negative shift |
| afc_fractional | halves of the same, Fourier | the same |
| engstrom_grid | 5 x 5 x 31 of +-3 px and +-30 deg | worst case of the grid, zeros |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance import metrics
from cnnjax.invariance.logits import images, shift_logits
from cnnjax.ops import shifts as moves

Predict = Callable[[jax.Array], Any]
Row = dict[str, float]


def adobe224(predict: Predict, x: Any, y: Any, *, seed: int = 0, margin: int = 16) -> Row:
    """Zhang (2019): two crops a batch of 8 at offsets in {0..2m-1}^2, five passes over the set.

    The published margin is 16 of 256 pixels: crops of 224 at {0..31}^2. x is the larger image.
    """
    family = f"crop:margin={margin}"
    offsets = moves.all_offsets((2 * margin, 2 * margin)) - margin + 1
    agree = _pairs(predict, x, y, family, offsets, batch=8, seed=seed, passes=5)
    exact = _classes(predict, x, offsets, family)
    return {"consistency": float(np.concatenate(agree).mean()), "exact": _published(exact)}


def aps_cifar(predict: Predict, x: Any, y: Any, *, seed: int = 0) -> Row:
    """Chaman and Dokmanic (2021): two rolls in {-3..2}^2 a batch of 256, mean of batch means."""
    offsets = moves.all_offsets((6, 6)) - 3
    agree = _pairs(predict, x, y, "circular", offsets, batch=256, seed=seed)
    exact = _classes(predict, x, offsets, "circular")
    return {"consistency": _mean_of_means(agree), "exact": _published(exact)}


def lps_agreement(predict: Predict, x: Any, y: Any, *, seed: int = 0, draws: int = 2) -> Row:
    """Rojas-Gomez et al. (2022): all of `draws` crops of the image padded by 3 must agree."""
    offsets = moves.all_offsets((6, 6)) - 3
    rng = np.random.default_rng(seed)
    agree = []
    for part, _ in _batches(x, y, 256):
        picks = offsets[rng.integers(0, len(offsets), draws)]
        given = np.stack([_class(predict, moves.move(part, d, "zeros")) for d in picks])
        agree.append((given == given[0]).all(axis=0))
    counts = metrics.class_counts(_classes(predict, x, offsets, "zeros")) / len(offsets)
    exact = float((counts**draws).sum(axis=1).mean())
    return {"consistency": float(np.concatenate(agree).mean()), "exact": exact}


def flc_cifar(predict: Predict, x: Any, y: Any, *, seed: int = 0) -> Row:
    """Grabinski et al. (2022), as told in their issue tracker: rolls in {0..3}^2, pair a batch."""
    offsets = moves.all_offsets((4, 4))
    agree = _pairs(predict, x, y, "circular", offsets, batch=256, seed=seed)
    exact = _classes(predict, x, offsets, "circular")
    return {"consistency": float(np.concatenate(agree).mean()), "exact": _published(exact)}


def tips_fidelity(predict: Predict, x: Any, y: Any, *, seed: int = 0) -> Row:
    """Saha and Gokhale (2024): P(right at both of two shifts), shifts in {0..H/8}^2.

    Their code compares three tensors in one chain, which fails for batches; this is the formula.
    """
    reach = images(x).shape[1] // 8
    offsets = moves.all_offsets((reach + 1, reach + 1))
    both = _pairs(predict, x, y, "zeros", offsets, batch=64, seed=seed, right=True)
    right = metrics.correct(_classes(predict, x, offsets, "zeros"), y).mean(axis=1)
    return {"fidelity": float(np.concatenate(both).mean()), "exact": float((right**2).mean())}


def azulay_diag(predict: Predict, x: Any, y: Any, *, seed: int = 0, steps: int = 8) -> Row:
    """Azulay and Weiss (2019): `steps` adjacent one-pixel diagonal places on a black canvas."""
    del y, seed
    margin = -(-steps // 2)
    offsets = moves.diagonal(steps) - steps // 2
    logits = shift_logits(predict, x, offsets, f"canvas:margin={margin}")
    return {
        "top1_change": metrics.top1_change(logits.argmax(-1)),
        "mean_absolute_change": metrics.mean_absolute_change(logits),
    }


def afc_adversarial(predict: Predict, x: Any, y: Any, *, seed: int = 0, reach: int = 4) -> Row:
    """Michaeli et al. (2023): right at every roll of {1..reach-1}^2 and unmoved, as coded.

    `exact` is over all circular shifts within reach - 1 pixels, axis-aligned ones included.
    """
    del seed
    coded = np.concatenate([[[0, 0]], moves.all_offsets((reach - 1, reach - 1)) + 1])
    whole = _classes(predict, x, moves.grid(reach - 1), "circular")
    return {
        "adversarial_accuracy": metrics.worst_case_accuracy(
            _classes(predict, x, coded, "circular"), y
        ),
        "exact": metrics.worst_case_accuracy(whole, y),
    }


def afc_fractional(predict: Predict, x: Any, y: Any, *, seed: int = 0, reach: int = 2) -> Row:
    """Michaeli et al. (2023): the same with half-pixel steps, by Fourier interpolation."""
    del seed
    steps = 2 * reach - 1
    coded = np.concatenate([[[0, 0]], moves.all_offsets((steps, steps)) + 1]) / 2
    whole = moves.grid(steps) / 2
    return {
        "adversarial_accuracy": metrics.worst_case_accuracy(
            _classes(predict, x, coded, "fourier"), y
        ),
        "exact": metrics.worst_case_accuracy(_classes(predict, x, whole, "fourier"), y),
    }


def engstrom_grid(predict: Predict, x: Any, y: Any, *, seed: int = 0, angles: int = 31) -> Row:
    """Engstrom et al. (2019): worst of 5 x 5 shifts of +-3 px and `angles` turns of +-30 degrees.

    Fractional shifts and turns are bilinear and let zeros in.
    """
    del seed
    y = np.asarray(y)
    every, still = np.ones(len(y), bool), np.zeros(len(y), bool)
    for turn in np.linspace(-30, 30, angles):
        for offset in moves.grid(2) * 1.5:
            moved = _affine(images(x), turn, offset)
            every &= _class(predict, moved) == y
    still = _class(predict, images(x)) == y
    return {"worst_of_grid": float(every.mean()), "natural": float(still.mean())}


PROTOCOLS: Mapping[str, Callable[..., Row]] = {
    function.__name__: function
    for function in (
        adobe224,
        aps_cifar,
        lps_agreement,
        flc_cifar,
        tips_fidelity,
        azulay_diag,
        afc_adversarial,
        afc_fractional,
        engstrom_grid,
    )
}


def compare(predict: Predict, x: Any, y: Any, *, seed: int = 0, margin: int = 2) -> dict[str, Row]:
    """Return every protocol's row for one checkpoint, and "all circular shifts" without sampling.

    adobe224 crops `margin` pixels from every side of x.
    """
    own: dict[str, dict[str, Any]] = {"adobe224": {"margin": margin}}
    table = {
        name: f(predict, x, y, seed=seed, **own.get(name, {})) for name, f in PROTOCOLS.items()
    }
    classes = shift_logits(predict, x).argmax(-1)
    table["all circular shifts"] = {
        "consistency": metrics.consistency(classes),
        "worst_case_accuracy": metrics.worst_case_accuracy(classes, y),
    }
    return table


def _pairs(
    predict: Predict,
    x: Any,
    y: Any,
    family: str,
    offsets: np.ndarray,
    *,
    batch: int,
    seed: int,
    passes: int = 1,
    right: bool = False,
) -> list[np.ndarray]:
    """Draw one pair of offsets a batch; return by batch which images agree (and are right)."""
    rng = np.random.default_rng(seed)
    agree = []
    for _ in range(passes):
        for part, labels in _batches(x, y, batch):
            first, second = offsets[rng.integers(0, len(offsets), 2)]
            a = _class(predict, moves.move(part, first, family))
            b = _class(predict, moves.move(part, second, family))
            agree.append((a == b) & (a == labels) if right else a == b)
    return agree


def _batches(x: Any, y: Any, size: int) -> Iterator[tuple[jax.Array, np.ndarray]]:
    x, y = images(x), np.asarray(y)
    if y.shape != (len(x),):
        raise ValueError(f"y: expected labels ({len(x)},), got shape {y.shape}")
    for first in range(0, len(x), size):
        yield x[first : first + size], y[first : first + size]


def _classes(predict: Predict, x: Any, offsets: np.ndarray, family: str) -> np.ndarray:
    return shift_logits(predict, x, offsets, family).argmax(-1)


def _class(predict: Predict, x: jax.Array) -> np.ndarray:
    return np.asarray(predict(x)).argmax(-1)


def _published(predictions: np.ndarray) -> float:
    return metrics.consistency_as_published(predictions)


def _mean_of_means(parts: list[np.ndarray]) -> float:
    return float(np.mean([part.mean() for part in parts]))


@jax.jit
def _affine(x: jax.Array, degrees: Any, offset: Any) -> jax.Array:
    return jax.vmap(lambda image: moves.affine(image, degrees=degrees, offset=offset))(
        jnp.asarray(x)
    )

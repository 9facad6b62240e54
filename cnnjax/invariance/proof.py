"""The proof that a net is exact for shifts, in exact arithmetic: net, variables, shape -> Proof.

    proof = prove(net, variables, (32, 32, 3))                # all 1024 circular shifts
    proof.lattice, proof.counterexample                       # (4, 4), [0, 1]
    prove(net, variables, (32, 32, 3), each_phase(plan, (32, 32)))     # 24 of them

Five integer images go through the net's twin (`exact.py`) at every shift, and what leaves the last
map is compared with ==.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance import exact
from cnnjax.invariance import logits as moved
from cnnjax.invariance.structure import Size, Structure
from cnnjax.ops import shifts as moves

HEAD = "the head"
HARD_IMAGES = 5
MULTIPLES = 8


@dataclass(frozen=True)
class Proof:
    """What was run in exact arithmetic: images, shifts, bits needed, and the module short of bits.

    `shifts` of `circular_shifts` were run. `lattice` is the finest on which all vectors were equal,
    `counterexample` a shift off it.
    """

    images: int
    shifts: int
    circular_shifts: int
    taps: int
    bits: float
    culprit: str | None
    lattice: Size
    counterexample: list[int] | None
    vacuous: bool

    def sentence(self) -> str:
        """Return the proof in words."""
        shifts = f"all {self.shifts} shifts"
        if self.shifts < self.circular_shifts:
            shifts = (
                f"{self.shifts} of {self.circular_shifts} shifts, each phase of the total stride "
                "and some multiples of it"
            )
        how = f"{self.images} integer images, {shifts}, {self.taps} taps a kernel"
        if self.culprit is not None:
            return f"Exact arithmetic ({how}) was left at {self.culprit}."
        off = self.counterexample
        return (
            f"Exact arithmetic ({how}, at most {self.bits:.0f} bits): equal with == on the "
            f"{self.lattice[0]} x {self.lattice[1]} lattice"
            + (f", different at shift {tuple(off)}." if off else ", that is everywhere.")
        )


class Shifts(NamedTuple):
    """Circular shifts (K, 2) of images (H, W) to try, the first of them none at all.

    `period` divides the image. A net of that total stride answers shifts alike that differ by a
    multiple of it; of the period's own multiples, more than one is tried.
    """

    size: Size
    period: Size
    offsets: np.ndarray

    def spread(self, equal: np.ndarray) -> np.ndarray:
        """Return for every circular shift (H, W) whether it is equal, from those tried (K,)."""
        cell = np.ones(self.period, bool)
        np.logical_and.at(cell, tuple((self.offsets % self.period).T), equal)
        if cell[0, 0]:
            return np.tile(cell, np.floor_divide(self.size, self.period))
        whole = np.zeros(self.size, bool)  # the period does not hold: nothing can be inferred
        whole[0, 0] = True
        return whole


def every_shift(size: Size) -> Shifts:
    """Return all circular shifts of images (H, W)."""
    return Shifts(size, size, moves.all_offsets(size))


def each_phase(plan: Structure, size: Size, seed: int = 0) -> Shifts:
    """Return each phase of the plan's total stride once, and MULTIPLES of the stride.

    All shifts, where the stride does not divide the image or that would be no fewer.
    """
    stride = (int(plan.stride[0]), int(plan.stride[1]))
    if stride != plan.stride or any(n % s for n, s in zip(size, stride, strict=True)):
        return every_shift(size)
    phases = np.concatenate([moves.all_offsets(stride), np.zeros((MULTIPLES, 2), int)])
    steps = np.random.default_rng(seed).integers(0, np.floor_divide(size, stride), phases.shape)
    steps[0] = 0
    fewer = len(phases) < math.prod(size)
    return Shifts(size, stride, phases + steps * stride) if fewer else every_shift(size)


def prove(
    net: nn.Module,
    variables: Any,
    image_shape: tuple[int, ...],
    shifts: Shifts | None = None,
    *,
    seed: int = 0,
    memory: int = moved.MEMORY,
) -> Proof:
    """Run the twin of net over the shifts, with ever sparser kernels until the numbers fit.

    image_shape (H, W, C); `shifts` default to `every_shift`.
    """
    x = hard_images(image_shape, seed).astype(widest(variables))
    shifts = shifts or every_shift((image_shape[0], image_shape[1]))
    few = len(shifts.offsets) < math.prod(shifts.size)
    twin = exact.Twin(net)
    for taps in (3, 2, 1):
        stand_in = exact.integers(variables, taps=taps, seed=seed)
        found = moved.shift_logits(
            twin, x, shifts.offsets, variables=stand_in, memory=memory, quick=few
        )
        proof = _judge(found, shifts, taps, twin, stand_in, image_shape)
        if proof.culprit is None and not proof.vacuous:
            return proof
    return proof


def hard_images(image_shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return five integer images (5, H, W, C): two random, the first shuffled, even, tied.

    The last two are what samplers that select a phase must survive: norms that differ by little,
    and norms that tie between phases of different content. The tied values have equal sums and
    equal squares (4 + 8 + 9 = 5 + 6 + 10), so that they still tie behind a convolution with bias.
    """
    rng = np.random.default_rng(seed)
    height, width, channels = image_shape
    first, second = rng.integers(0, 8, (2, *image_shape))
    shuffled = rng.permutation(first.reshape(-1, channels)).reshape(image_shape)
    even = 6 + (rng.random(image_shape) < 0.1)
    tied = np.zeros(image_shape, int)
    for row, left, values in ((0, 0, (4, 8, 9)), (4, 1, (5, 6, 10))):
        for k, value in enumerate(values):
            tied[row % height, (left + 4 * k) % width] = value
    return np.stack([first, second, shuffled, even, tied]).astype(np.float32)


def finest_lattice(equal: np.ndarray) -> Size:
    """Return the (a, b) with the most shifts in aZ x bZ such that equal (H, W) holds on them all.

    a divides H and b divides W.
    """
    height, width = equal.shape
    divisors = [[d for d in range(1, n + 1) if n % d == 0] for n in (height, width)]
    fits = [(a, b) for a, b in itertools.product(*divisors) if equal[::a, ::b].all()]
    return min(fits, key=lambda lattice: (lattice[0] * lattice[1], abs(lattice[0] - lattice[1])))


def _judge(
    found: np.ndarray,
    shifts: Shifts,
    taps: int,
    twin: exact.Twin,
    variables: Any,
    image_shape: tuple[int, ...],
) -> Proof:
    vectors, bits, culprit = exact.split(found)
    apart = np.abs(vectors - vectors[:, :1]).max(axis=2)
    equal = (apart == 0).all(axis=0)
    short = bits >= exact.TOO_MANY
    module = None
    if short.any():
        paths = twin.paths(variables, image_shape)
        module = paths[int(np.bincount(culprit[short]).argmax())]
    elif _rounded(vectors, apart):
        module = HEAD
    off = shifts.offsets[~equal]
    return Proof(
        images=len(vectors),
        shifts=equal.size,
        circular_shifts=math.prod(shifts.size),
        taps=taps,
        bits=float(bits.max()),
        culprit=module,
        lattice=finest_lattice(shifts.spread(equal)),
        counterexample=off[0].tolist() if len(off) else None,
        # The third image has the pixels of the first in another order: it must look different.
        vacuous=bool((vectors[0, 0] == vectors[2, 0]).all()),
    )


def widest(variables: Any) -> Any:
    """Return the dtype that variables and float32 images are computed in."""
    return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in jax.tree.leaves(variables)))


def _rounded(vectors: np.ndarray, apart: np.ndarray) -> bool:
    """True where a shift changes a vector by no more than rounding would: no integer does that.

    So do heads that are no sum, an attention or a log of exponentials, whose order of adding moves
    with the image; they are blind to the place, and nothing may be said against them.
    """
    scale = np.abs(vectors).max(axis=(1, 2))
    few_steps = 16 * np.finfo(vectors.dtype).eps * scale
    return bool(((apart > 0) & (apart <= few_steps[:, None])).any())

"""What a net guarantees about shifts, and the proof: net, variables, image shape -> Certificate.

    certificate = certify(net, variables, (32, 32, 3))
    print(certificate.verdict)                # "exact for all circular shifts"
    print(certificate.paragraph())
    json.dumps(certificate.to_dict())

| verdict | claim |
|---|---|
| exact for all circular shifts | f(roll(x, d)) = f(x) for every d |
| exact on the a x b lattice | the same for d a multiple of (a, b), and no finer |
| interior only, margin m px | the last map moves with the image m px from the border or more |
| all circular shifts to 1e-05 | as above up to rounding: a method is not dyadic |
| none: ... | a counterexample, or a head that sees the place |
| not proved: ... | exact arithmetic could not be had; nothing is said against the net |

The proof runs the net's twin in exact arithmetic (`exact.py`) over all H*W shifts and compares with
==. The audit then runs the net as trained: how far its logits stray, how many classes change, how
often a phase was tied, and the first layer whose map does not move with the image.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance import exact, layerwise, structure
from cnnjax.invariance import logits as moved
from cnnjax.invariance.exhaustive import exhaustive_logits
from cnnjax.invariance.structure import Size, Structure
from cnnjax.ops import shifts as moves

TOLERANCE = 1e-5
HEAD = "the head"
GUARANTEES = ("all", "lattice", "interior", "tolerance", "none", "not proved")


@dataclass(frozen=True)
class Proof:
    """What was run in exact arithmetic: images, shifts, bits needed, and the module short of bits.

    `lattice` is the finest on which all vectors were equal, `counterexample` a shift off it.
    """

    images: int
    shifts: int
    taps: int
    bits: float
    culprit: str | None
    lattice: Size
    counterexample: list[int] | None
    vacuous: bool


@dataclass(frozen=True)
class Audit:
    """The net as trained, over all circular shifts of a few images."""

    images: int
    deviation: float
    deviation_on_lattice: float
    classes_changed: float
    ties: int
    dtype: str
    first_break: str | None


@dataclass(frozen=True)
class Certificate:
    """A verdict with its reasons; `guarantee` is one of GUARANTEES."""

    verdict: str
    guarantee: str
    image_shape: tuple[int, ...]
    structure: Structure
    proof: Proof | None
    audit: Audit

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able nested dictionaries."""
        plan = asdict(self.structure) | {
            "circular": self.structure.circular,
            "selecting": self.structure.selecting,
        }
        return asdict(self) | {"structure": plan}

    def paragraph(self) -> str:
        """Return the certificate as one paragraph of plain English."""
        plan, audit = self.structure, self.audit
        height, width, _ = self.image_shape
        parts = [
            f"Verdict: {self.verdict}.",
            f"Images {height} x {width}.",
            plan.sentence(),
            _proof_words(self.proof),
            f"As trained ({audit.dtype}, {audit.images} images, all {height * width} circular "
            f"shifts): logits stray by up to {audit.deviation:.2g} of their scale, "
            f"{audit.classes_changed:.1%} of classes change, {audit.ties} phases tied; "
            f"first layer that does not move with the image: {audit.first_break or 'none'}.",
        ]
        return " ".join(part for part in parts if part)


def certify(
    net: nn.Module,
    variables: Any,
    image_shape: tuple[int, int, int],
    *,
    images: Any = None,
    seed: int = 0,
    memory: int = moved.MEMORY,
) -> Certificate:
    """Certify what net guarantees for images (H, W, C), at its variables.

    `images` (N, H, W, C) are for the audit of the trained net (default: two of noise). Raises
    ValueError for a shape that is no image and for a net that is not in evaluation mode.
    """
    image_shape = _shape(image_shape)
    rng = np.random.default_rng(seed)
    if images is None:
        images = rng.normal(size=(2, *image_shape)).astype(np.float32)
    plan = structure.read(net, variables, image_shape)
    proof = prove(net, variables, image_shape, seed=seed, memory=memory)
    verdict, guarantee = _verdict(plan, proof)
    if guarantee == "none" and plan.head != "flatten" and not plan.circular:
        verdict, guarantee = _interior(net, variables, image_shape, plan, proof, seed)
    lattice = proof.lattice if guarantee in ("all", "lattice") else (1, 1)
    found = _audit(net, variables, images, plan, lattice, memory)
    if guarantee == "not proved" and _only_rounding(plan, proof):
        verdict, guarantee = _to_tolerance(proof, found, net, variables, images, memory)
    return Certificate(verdict, guarantee, image_shape, plan, proof, found)


def prove(
    net: nn.Module,
    variables: Any,
    image_shape: tuple[int, ...],
    *,
    seed: int = 0,
    memory: int = moved.MEMORY,
) -> Proof:
    """Run the twin of net over all shifts, with ever sparser kernels until the numbers fit."""
    x = hard_images(image_shape, seed).astype(_widest(variables))
    twin = exact.Twin(net)
    for taps in (3, 2, 1):
        stand_in = exact.integers(variables, taps=taps, seed=seed)
        found = moved.shift_logits(twin, x, variables=stand_in, memory=memory)
        proof = _judge(found, image_shape, taps, twin, stand_in)
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
    found: np.ndarray, image_shape: tuple[int, ...], taps: int, twin: exact.Twin, variables: Any
) -> Proof:
    vectors, bits, culprit = exact.split(found)
    apart = np.abs(vectors - vectors[:, :1]).max(axis=2)
    equal = (apart == 0).all(axis=0).reshape(image_shape[:2])
    short = bits >= exact.TOO_MANY
    module = None
    if short.any():
        paths = twin.paths(variables, image_shape)
        module = paths[int(np.bincount(culprit[short]).argmax())]
    elif _rounded(vectors, apart):
        module = HEAD
    off = np.argwhere(~equal)
    return Proof(
        images=len(vectors),
        shifts=equal.size,
        taps=taps,
        bits=float(bits.max()),
        culprit=module,
        lattice=finest_lattice(equal),
        counterexample=off[0].tolist() if len(off) else None,
        # The third image has the pixels of the first in another order: it must look different.
        vacuous=bool((vectors[0, 0] == vectors[2, 0]).all()),
    )


def _widest(variables: Any) -> Any:
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


def _verdict(plan: Structure, proof: Proof) -> tuple[str, str]:
    if plan.head == "flatten":
        return "none: flatten head", "none"
    if proof.culprit is not None:
        return f"not proved: {proof.culprit} leaves exact arithmetic", "not proved"
    if proof.vacuous:
        return "not proved: the stand-in weights make every image alike", "not proved"
    lattice = proof.lattice
    if lattice == (1, 1):
        return "exact for all circular shifts", "all"
    if proof.shifts > lattice[0] * lattice[1]:
        return f"exact on the {lattice[0]} x {lattice[1]} lattice", "lattice"
    return f"none: shift {tuple(proof.counterexample or ())} changes the answer", "none"


def _interior(
    net: nn.Module,
    variables: Any,
    image_shape: tuple[int, ...],
    plan: Structure,
    proof: Proof,
    seed: int,
) -> tuple[str, str]:
    """Prove with == that the last map moves with the image where no padding reaches."""
    (top, bottom), (left, right) = plan.touched
    rows, columns = plan.last[0] - top - bottom, plan.last[1] - left - right
    if min(rows, columns) < 2:
        return f"none: padding reaches every place ({plan.first_padded()})", "none"
    # One step is a cell of the last map, or a pixel where its cells are smaller.
    (sh, sw) = (math.ceil(max(stride, 1)) for stride in plan.stride)
    margin = max(sh, sw)
    rng = np.random.default_rng(seed)
    wide = (image_shape[0] + 2 * margin, image_shape[1] + 2 * margin, image_shape[2])
    x = rng.integers(0, 8, (1, *wide)).astype(_widest(variables))
    stand_in = exact.integers(variables, taps=proof.taps, seed=seed)
    offsets = [(0, 0), (sh, 0), (0, sw), (-sh, sw)]
    family = f"crop:margin={margin}"
    views = jnp.concatenate([moves.move(jnp.asarray(x), d, family) for d in offsets])
    last, bits = map(np.asarray, jax.jit(exact.Twin(net).last_map)(stand_in, views))
    if bits.max() >= exact.TOO_MANY:
        return "not proved: the interior leaves exact arithmetic", "not proved"
    maps = last[:, top : plan.last[0] - bottom, left : plan.last[1] - right]
    for (down, across), shifted in zip(offsets, maps, strict=True):
        step = (int(down / plan.stride[0]), int(across / plan.stride[1]))
        if not np.array_equal(*_overlap(maps[0], shifted, step)):
            return f"none: shift {(down, across)} changes the interior of the last map", "none"
    return f"interior only, margin {plan.margin} px", "interior"


def _overlap(still: np.ndarray, shifted: np.ndarray, step: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of two maps (H, W, C) that show the same places."""
    for axis, d in enumerate(step):
        still, shifted = np.moveaxis(still, axis, 0), np.moveaxis(shifted, axis, 0)
        first, second = (still, shifted) if d >= 0 else (shifted, still)
        first, second = first[: len(first) - abs(d)], second[abs(d) :]
        still, shifted = (first, second) if d >= 0 else (second, first)
        still, shifted = np.moveaxis(still, 0, axis), np.moveaxis(shifted, 0, axis)
    return still, shifted


def _audit(
    net: nn.Module, variables: Any, images: Any, plan: Structure, lattice: Size, memory: int
) -> Audit:
    logits = exhaustive_logits(net, variables, images, memory=memory)
    scale = max(float(np.abs(logits).max()), 1e-30)
    stray = np.abs(logits - logits[:, :1]).max(axis=(0, 2)).reshape(np.shape(images)[1:3]) / scale
    classes = logits.argmax(axis=-1)
    moves_with = layerwise.first_break(net, variables, images)
    return Audit(
        images=len(logits),
        deviation=float(stray.max()),
        deviation_on_lattice=float(stray[:: lattice[0], :: lattice[1]].max()),
        classes_changed=float((classes != classes[:, :1]).mean()),
        ties=layerwise.tie_count(net, variables, images) if plan.selecting else 0,
        dtype=" and ".join(sorted({str(leaf.dtype) for leaf in jax.tree.leaves(variables)})),
        first_break=moves_with,
    )


def _only_rounding(plan: Structure, proof: Proof) -> bool:
    """True where nothing but rounding stands between a known plan and an exact proof."""
    return proof.culprit is not None and plan.circular and plan.head != "unknown"


def _to_tolerance(
    proof: Proof, found: Audit, net: nn.Module, variables: Any, images: Any, memory: int
) -> tuple[str, str]:
    logits = exhaustive_logits(net, variables, images, memory=memory)
    scale = max(float(np.abs(logits).max()), 1e-30)
    near = np.abs(logits - logits[:, :1]).max(axis=(0, 2)) <= TOLERANCE * scale
    lattice = finest_lattice(near.reshape(np.shape(images)[1:3]))
    why = f"{proof.culprit} is not dyadic"
    if lattice == (1, 1):
        return f"all circular shifts to {TOLERANCE:g}: {why}", "tolerance"
    if near.size > lattice[0] * lattice[1]:
        return f"the {lattice[0]} x {lattice[1]} lattice to {TOLERANCE:g}: {why}", "tolerance"
    return f"not proved: logits stray by {found.deviation:.2g} of their scale", "not proved"


def _proof_words(proof: Proof | None) -> str:
    if proof is None:
        return ""
    how = f"{proof.images} integer images, all {proof.shifts} shifts, {proof.taps} taps a kernel"
    if proof.culprit is not None:
        return f"Exact arithmetic ({how}) was left at {proof.culprit}."
    off = proof.counterexample
    return (
        f"Exact arithmetic ({how}, at most {proof.bits:.0f} bits): equal with == on the "
        f"{proof.lattice[0]} x {proof.lattice[1]} lattice"
        + (f", different at shift {tuple(off)}." if off else ", that is everywhere.")
    )


def _shape(image_shape: Any) -> tuple[int, int, int]:
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(f"image_shape: expected (H, W, C), three ints >= 1, got {image_shape!r}")
    return shape

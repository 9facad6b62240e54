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

The proof (`proof.py`) runs the net's twin in exact arithmetic over all H*W shifts and compares with
==. The audit then runs the net as trained: how far its logits stray, how many classes change, how
often a phase was tied, and the first layer whose map does not move with the image.

    certify(net, variables, (32, 32, 3), brief=True, audit=known)

tries each phase of the total stride once, and some of its multiples, in place of all shifts, and
takes the audit of logits that are known already: a small part of the work, and it says so.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.invariance import exact, layerwise, structure
from cnnjax.invariance import logits as moved
from cnnjax.invariance.exhaustive import exhaustive_logits
from cnnjax.invariance.proof import Proof, each_phase, every_shift, finest_lattice, prove, widest
from cnnjax.invariance.structure import Size, Structure
from cnnjax.ops import shifts as moves

TOLERANCE = 1e-5
GUARANTEES = ("all", "lattice", "interior", "tolerance", "none", "not proved")


@dataclass(frozen=True)
class Audit:
    """The net as trained, over all circular shifts of a few images.

    `lattice` is the finest on which no logit strays by more than TOLERANCE; `looked` is whether
    ties were counted and the layers watched, which takes the net and not its logits alone.
    """

    images: int
    shifts: int
    deviation: float
    lattice: Size
    classes_changed: float
    dtype: str
    looked: bool = False
    ties: int = 0
    first_break: str | None = None

    def sentence(self) -> str:
        """Return the audit in words."""
        text = (
            f"As trained ({self.dtype}, {self.images} images, all {self.shifts} circular shifts): "
            f"logits stray by up to {self.deviation:.2g} of their scale, "
            f"{self.classes_changed:.1%} of classes change"
        )
        if not self.looked:
            return f"{text}."
        return (
            f"{text}, {self.ties} phases tied; "
            f"first layer that does not move with the image: {self.first_break or 'none'}."
        )


@dataclass(frozen=True)
class Certificate:
    """A verdict with its reasons; `guarantee` is one of GUARANTEES."""

    verdict: str
    guarantee: str
    image_shape: tuple[int, ...]
    structure: Structure
    proof: Proof
    audit: Audit | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able nested dictionaries."""
        plan = asdict(self.structure) | {
            "circular": self.structure.circular,
            "selecting": self.structure.selecting,
        }
        return asdict(self) | {"structure": plan}

    def paragraph(self) -> str:
        """Return the certificate as one paragraph of plain English."""
        height, width, _ = self.image_shape
        parts = [
            f"Verdict: {self.verdict}.",
            f"Images {height} x {width}.",
            self.structure.sentence(),
            self.proof.sentence(),
        ]
        if self.audit is not None:
            parts.append(self.audit.sentence())
        return " ".join(parts)


def certify(
    net: nn.Module,
    variables: Any,
    image_shape: tuple[int, int, int],
    *,
    images: Any = None,
    brief: bool = False,
    audit: Audit | None = None,
    seed: int = 0,
    memory: int = moved.MEMORY,
) -> Certificate:
    """Certify what net guarantees for images (H, W, C), at its variables.

    `images` (N, H, W, C) are for the audit of the trained net (default: two of noise), unless one
    is given. `brief` tries the shifts of `each_phase` alone, and audits `images` only where the
    verdict hangs on it. Raises ValueError for a shape that is no image and for a net that is not in
    evaluation mode.
    """
    image_shape = _shape(image_shape)
    size = image_shape[:2]
    plan = structure.read(net, variables, image_shape)
    shifts = each_phase(plan, size, seed) if brief else every_shift(size)
    proof = prove(net, variables, image_shape, shifts, seed=seed, memory=memory)
    verdict, guarantee = _verdict(plan, proof)
    if guarantee == "none" and plan.head != "flatten" and not plan.circular:
        verdict, guarantee = _interior(net, variables, image_shape, plan, proof, seed)
    undecided = guarantee == "not proved" and _only_rounding(plan, proof)
    if audit is None and (not brief or (undecided and images is not None)):
        images = noise(image_shape, seed) if images is None else images
        audit = _whole_audit(net, variables, images, plan, memory)
    if audit is not None and undecided:
        verdict, guarantee = _to_tolerance(proof, audit)
    return Certificate(verdict, guarantee, image_shape, plan, proof, audit)


def noise(image_shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return two images of noise (2, H, W, C), for an audit where there are no others."""
    return np.random.default_rng(seed).normal(size=(2, *image_shape)).astype(np.float32)


def audit_logits(variables: Any, logits: np.ndarray, size: Size) -> Audit:
    """Return what a net's logits (N, H*W, classes) at all circular shifts of images (H, W) tell."""
    scale = max(float(np.abs(logits).max()), 1e-30)
    stray = np.abs(logits - logits[:, :1]).max(axis=(0, 2)).reshape(size) / scale
    classes = logits.argmax(axis=-1)
    return Audit(
        images=len(logits),
        shifts=logits.shape[1],
        deviation=float(stray.max()),
        lattice=finest_lattice(stray <= TOLERANCE),
        classes_changed=float((classes != classes[:, :1]).mean()),
        dtype=" and ".join(sorted({str(leaf.dtype) for leaf in jax.tree.leaves(variables)})),
    )


def _whole_audit(
    net: nn.Module, variables: Any, images: Any, plan: Structure, memory: int
) -> Audit:
    logits = exhaustive_logits(net, variables, images, memory=memory)
    return replace(
        audit_logits(variables, logits, np.shape(images)[1:3]),
        looked=True,
        ties=layerwise.tie_count(net, variables, images) if plan.selecting else 0,
        first_break=layerwise.first_break(net, variables, images),
    )


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
    if proof.circular_shifts > lattice[0] * lattice[1]:
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
    x = rng.integers(0, 8, (1, *wide)).astype(widest(variables))
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


def _only_rounding(plan: Structure, proof: Proof) -> bool:
    """True where nothing but rounding stands between a known plan and an exact proof."""
    return proof.culprit is not None and plan.circular and plan.head != "unknown"


def _to_tolerance(proof: Proof, audit: Audit) -> tuple[str, str]:
    lattice = audit.lattice
    why = f"{proof.culprit} is not dyadic"
    if lattice == (1, 1):
        return f"all circular shifts to {TOLERANCE:g}: {why}", "tolerance"
    if proof.circular_shifts > lattice[0] * lattice[1]:
        return f"the {lattice[0]} x {lattice[1]} lattice to {TOLERANCE:g}: {why}", "tolerance"
    return f"not proved: logits stray by {audit.deviation:.2g} of their scale", "not proved"


def _shape(image_shape: Any) -> tuple[int, int, int]:
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(f"image_shape: expected (H, W, C), three ints >= 1, got {image_shape!r}")
    return shape

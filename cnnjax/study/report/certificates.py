"""Certificates of a report: each arm's proof, made once from its first finished run, and kept.

    found = read_certificates(evidence)      # arm's name -> {"verdict": ..., "paragraph": ...}

A trial of the full battery has its own; of the others, which left their plan and their audit, the
brief proof is made here (`invariance/certificate.py`). certificates.json holds those by trial id at
seed 0, for a proof is a fact of the network's plan.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cnnjax.config import trial_id
from cnnjax.invariance import structure
from cnnjax.invariance.certificate import Audit, certify, noise
from cnnjax.invariance.proof import HARD_IMAGES, each_phase
from cnnjax.study import trained
from cnnjax.study.report.cards import read_cards
from cnnjax.study.report.evidence import Arm, Evidence
from cnnjax.study.report.kept import Entry, keep, kept

KEPT = "certificates.json"
WORDS = frozenset({"verdict", "paragraph"})
MOST_PROOFS = 64
MOST_FLOPS = 2e12  # half a minute of two cores
# Beyond these a report would take memory that a study's machine may not have.
THREADS = min(4, os.cpu_count() or 1)


def read_certificates(evidence: Evidence) -> dict[str, Entry]:
    """Return verdict and paragraph of every arm that has a finished run and was examined at all."""
    found = {arm.name: own for arm in evidence.arms if (own := _own(evidence, arm))}
    left = {arm.name: arm for arm in evidence.arms if "proof" not in found.get(arm.name, ["proof"])}
    keys = _keys(evidence, left)
    known = {key: entry for key, entry in kept(evidence, KEPT, WORDS).items() if _is_text(entry)}
    # Arms that are one function have one run, and need one proof.
    missing = {key: left[name] for name, key in keys.items() if key not in known}
    if missing:
        made = _prove_all(evidence, dict(list(missing.items())[:MOST_PROOFS]))
        keep(evidence, KEPT, known | {k: entry for k, entry in made.items() if _is_text(entry)})
        known |= made
    return found | {name: _joined(found[name], known.get(key)) for name, key in keys.items()}


def _prove_all(evidence: Evidence, arms: Mapping[str, Arm]) -> dict[str, Entry]:
    flops = {name: card["flops"] for name, card in read_cards(evidence)[0].items()}
    with ThreadPoolExecutor(THREADS) as threads:  # compiling leaves Python to the others
        made = threads.map(lambda arm: prove(evidence, arm, flops.get(arm.name)), arms.values())
        return dict(zip(arms, made, strict=True))


def prove(evidence: Evidence, arm: Arm, flops: int | None) -> Entry:
    """Return verdict and paragraph of an arm; {"problem": why} where there can be no proof."""
    first = arm.ids[0]
    if evidence.hurry.is_set():
        return {"problem": "Not proved yet: `cnnjax report` goes on with it."}
    try:
        run = trained.load(evidence.homes[first].trial(first).root)
        shape = run.recipe.image_shape
        plan = structure.read(run.net, run.variables, shape)
        images = HARD_IMAGES * len(each_phase(plan, shape[:2]).offsets)
        if flops is None or flops * images > MOST_FLOPS:
            words = f"`cnnjax certify` proves it: {images:,} images through the network."
            return {"problem": words}
        audit = _audit(_own(evidence, arm))
        sample = noise(shape)
        few = flops * len(sample) * shape[0] * shape[1] <= MOST_FLOPS
        found = certify(
            run.net, run.variables, shape, images=sample if few else None, brief=True, audit=audit
        )
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        # RuntimeError: an accelerator whose memory a running study holds.
        return {"problem": f"No proof: {' '.join(str(error).split())}"}
    if audit is not None:  # which is the run's own, and is said with the run
        found = dataclasses.replace(found, audit=None)
    return {"verdict": found.verdict, "paragraph": found.paragraph()}


def _own(evidence: Evidence, arm: Arm) -> Entry:
    """Return what the arm's first finished run left; {} where that is nothing."""
    left: Any = next((evidence.results[trial].get("certificate") for trial in arm.ids[:1]), None)
    return dict(left) if _is_text(left) else {}


def _is_text(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(word), str) for word in WORDS)


def _keys(evidence: Evidence, arms: Mapping[str, Arm]) -> dict[str, str]:
    """Return under what each arm's proof is kept."""
    configs = {t.owner: t.runs for source in evidence.sources for t in source.trials}
    return {
        name: trial_id(dataclasses.replace(configs[arm.ids[0]], seed=0))
        for name, arm in arms.items()
    }


def _audit(own: Mapping[str, Any]) -> Audit | None:
    """Return the audit that a run left; None where it left none, or one of another version."""
    try:
        found = own["audit"]
        audit = Audit(**{**found, "lattice": tuple(found["lattice"])})
        audit.sentence()
    except (KeyError, TypeError, ValueError):
        return None
    return audit


def _joined(own: Mapping[str, Any], proof: Entry | None) -> Entry:
    """Return the proof with the audit of the run; the run's own words where there is no proof."""
    if proof is None or "problem" in proof:
        rest = proof["problem"] if proof else ""
        return {"verdict": own["verdict"], "paragraph": f"{own['paragraph']} {rest}".strip()}
    audit = _audit(own)
    words = f" {audit.sentence()}" if audit else ""
    return {"verdict": proof["verdict"], "paragraph": proof["paragraph"] + words}

"""Certificates of a report: proved once from a trained run, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_checks import check

from cnnjax.config import Config
from cnnjax.study.grid import Study
from cnnjax.study.report import Source, certificates, gather, render
from cnnjax.study.report.certificates import KEPT, read_certificates
from cnnjax.study.report.evidence import Evidence
from cnnjax.study.run import run_study
from cnnjax.study.store import Store

STUDY = Study(
    name="proved",
    question="Which of these is proved?",
    base=Config(
        dataset="digits", epochs=1, widths=(4,), padding="CIRCULAR", head="gap", shift_images=8
    ),
    axes={"pool": ("max", "aps", "softpool", "decimate"), "stride": (2,)},
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("proved")
    assert run_study(STUDY, root).failed == 0
    return root


def evidence(root: Path) -> Evidence:
    return gather([Source.read(Store(root))])


@pytest.mark.slow
def test_every_arm_of_a_cheap_study_has_its_certificate(trained: Path) -> None:
    found = read_certificates(evidence(trained))
    verdicts = {name: own["verdict"] for name, own in found.items()}
    assert verdicts == {
        "pool max": "exact on the 2 x 2 lattice",
        "pool aps": "exact for all circular shifts",
        "pool softpool": "the 2 x 2 lattice to 1e-05: stage0/pool is not dyadic",
        "pool decimate": "exact on the 2 x 2 lattice",
    }
    for own in found.values():
        assert "12 of 64 shifts" in own["paragraph"]  # the proof
        assert "8 images, all 64 circular shifts): logits stray" in own["paragraph"]  # the audit
    page = check(render(evidence(trained)))
    assert "exact for all circular shifts" in page.words()


@pytest.mark.slow
def test_a_proof_is_made_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read_certificates(evidence(trained))
    monkeypatch.setattr(certificates, "prove", None)
    assert read_certificates(evidence(trained)) == first


@pytest.mark.slow
def test_what_has_no_proof_says_why_and_is_tried_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (trained / KEPT).read_bytes()
    (trained / KEPT).unlink()
    monkeypatch.setattr(certificates, "MOST_FLOPS", 1)
    for own in read_certificates(evidence(trained)).values():
        assert own["verdict"] == "not examined"
        assert own["paragraph"].endswith(
            "`cnnjax certify` proves it: 60 images through the network."
        )
    monkeypatch.undo()
    for variables in trained.glob("trials/*/variables.npz"):
        variables.rename(variables.with_suffix(".away"))
    for own in read_certificates(evidence(trained)).values():
        assert own["verdict"] == "not examined" and "No proof: " in own["paragraph"]
    for away in trained.glob("trials/*/variables.away"):
        away.rename(away.with_suffix(".npz"))
    assert "not examined" not in str(read_certificates(evidence(trained)))
    assert (trained / KEPT).read_bytes() == kept

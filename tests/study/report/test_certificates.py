"""Certificates of a report: proved once from a trained run, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_checks import check
from report_studies import write_study

from cnnjax.config import Config
from cnnjax.study.files import write_json
from cnnjax.study.grid import Study
from cnnjax.study.report import Source, certificates, gather, kept, render, writing
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


AUDIT = {
    "images": 2,
    "shifts": 64,
    "deviation": 0.25,
    "lattice": [2, 2],
    "classes_changed": 0.5,
    "dtype": "float32",
}


def left(audit: Any) -> Any:
    """A change to results: what a trial of the cheap battery leaves, which is no proof."""
    own = {"verdict": "-", "paragraph": "Plan.", "audit": audit}
    return lambda config, result: result | {"certificate": own}


def cheap(root: Path, audit: Any = AUDIT) -> Path:
    """A study whose trials left no proof."""
    return write_study(root, change=left(audit)).root


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the arms that were proved, by a proof that costs nothing."""
    names: list[str] = []

    def prove(evidence: Evidence, arm: Any, flops: Any) -> dict[str, str]:
        names.append(arm.name)
        return {"verdict": "proved", "paragraph": "Proof."}

    monkeypatch.setattr(certificates, "prove", prove)
    monkeypatch.setattr(certificates, "read_cards", lambda evidence: ({}, ""))
    return names


def test_a_proof_is_kept_and_the_audit_goes_with_it(tmp_path: Path, proved: list[str]) -> None:
    root = cheap(tmp_path / "study")
    for _ in range(2):
        found = read_certificates(evidence(root))
        assert len(proved) == len(set(proved)) == len(found) == 6
        for own in found.values():
            assert own["verdict"] == "proved"
            assert own["paragraph"].startswith("Proof. As trained (float32, 2 images, all 64")


@pytest.mark.parametrize(
    "audit",
    [
        None,
        3,
        [1],
        AUDIT | {"new": 1},
        AUDIT | {"lattice": None},
        AUDIT | {"deviation": "much"},
        {k: v for k, v in AUDIT.items() if k != "shifts"},
    ],
)
def test_an_audit_of_another_version_is_left_out(
    tmp_path: Path, proved: list[str], audit: Any
) -> None:
    found = read_certificates(evidence(cheap(tmp_path / "study", audit)))
    assert {own["paragraph"] for own in found.values()} == {"Proof."}


@pytest.mark.parametrize("entry", [3, "proved", ["proved"], {"verdict": 3, "paragraph": None}])
def test_damaged_proofs_are_made_anew(tmp_path: Path, proved: list[str], entry: Any) -> None:
    root = cheap(tmp_path / "study")
    good = read_certificates(evidence(root))
    whole = kept.read_object(root / KEPT) or {}
    write_json(root / KEPT, whole | {"entries": dict.fromkeys(whole["entries"], entry)})
    assert read_certificates(evidence(root)) == good and len(proved) == 12
    (root / KEPT).unlink()
    (root / KEPT).mkdir()  # can be neither read nor written
    for _ in range(2):
        assert read_certificates(evidence(root)) == good and len(proved) == 18


def test_an_arm_that_runs_as_no_cell_of_the_grid_is_proved(
    tmp_path: Path, proved: list[str]
) -> None:
    """A last pool that is the pool as well runs as no last pool at all."""
    study = STUDY.changed({"pool": ("max", "mean"), "last_pool": ("max", "mean")})
    assert {t.owner for t in study.trials()} - {t.id for t in study.trials()}
    write_study(tmp_path, study, change=left(AUDIT))
    found = read_certificates(evidence(tmp_path))
    assert [own["verdict"] for own in found.values()] == ["proved"] * 4


@pytest.mark.parametrize("damage", [{"code": "of another cnnjax"}, {"entries": [3]}])
def test_proofs_of_other_code_are_made_anew(
    tmp_path: Path, proved: list[str], damage: dict[str, Any]
) -> None:
    root = cheap(tmp_path / "study")
    read_certificates(evidence(root))
    write_json(root / KEPT, (kept.read_object(root / KEPT) or {}) | damage)
    read_certificates(evidence(root))
    assert len(proved) == 12
    read_certificates(evidence(root))
    assert len(proved) == 12


def test_nobody_waits_for_proofs_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evidence(cheap(tmp_path / "study"))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "draw", interrupted)
    monkeypatch.setattr(writing, "read_certificates", lambda evidence: evidence.hurry.wait(5))
    with pytest.raises(KeyboardInterrupt):
        writing.write_all(found, tmp_path / "page.html", tmp_path / "figures")
    assert found.hurry.is_set()
    assert "problem" in certificates.prove(found, found.arms[0], 1)


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

"""Pages are made without tracing networks, unless a test asks for `real_cards`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_studies import CARD, fail_max_3, write_study

from cnnjax.study.report import cards
from cnnjax.study.store import Store


@pytest.fixture(autouse=True, scope="session")
def no_flush() -> Iterator[None]:
    """Made-up files need not survive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def quick_cards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards without tracing a network; a test marked real_cards has the real ones."""
    if "real_cards" not in request.fixturenames:
        monkeypatch.setattr(cards, "card", lambda config: dict(CARD))


@pytest.fixture
def real_cards() -> None:
    """Ask for cards that are traced."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A finished study in which one arm failed."""
    return write_study(tmp_path / "study", change=fail_max_3)

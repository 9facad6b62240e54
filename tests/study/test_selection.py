"""Which trials run: by field, by id, by order; and what is estimated before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cnnjax.config import Config, to_dict, trial_id
from cnnjax.study.forecast import COMPILE_SECONDS, forecast
from cnnjax.study.grid import Study
from cnnjax.study.run import plan
from cnnjax.study.selection import Choice, in_order
from cnnjax.study.store import Store

TINY = "digits_canvas:side=18:scale=1:train=40:test=20"
STUDY = Study(
    name="s",
    question="?",
    base=Config(
        window=3, padding="CIRCULAR", head="gap", widths=(2,), dense=(), dataset=TINY, epochs=2
    ),
    axes={"pool": ("max", "decimate", "aps"), "stride": (1, 2), "seed": (0, 1)},
)
TRIALS = STUDY.trials()
MISSING = list({trial_id(t.runs): t.runs for t in TRIALS}.values())


def chosen(**options: Any) -> list[tuple[str | None, Any, int]]:
    return [(c.pool, c.stride, c.seed) for c in Choice(**options).of(TRIALS, MISSING)]


def test_only() -> None:
    assert chosen(only="pool=max|aps,stride=2,seed=0", priority="grid") == [
        ("max", 2, 0),
        ("aps", 2, 0),
    ]
    one = next(t for t in TRIALS if t.config.pool == "max")
    assert [trial_id(c) for c in Choice(only=one.id[:6]).of(TRIALS, MISSING)] == [one.id]
    # aps at stride 1 is decimation at stride 1: asking for one runs the other
    assert chosen(only="pool=aps,stride=1,seed=1") == [("decimate", 1, 1)]


def test_every_id_that_a_dry_run_prints_can_be_asked_for() -> None:
    """The owner of a cell whose last pool is its own pool is no cell of the grid."""
    study = STUDY.changed({"pool": ("max", "mean"), "last_pool": ("max", "mean"), "stride": (2,)})
    trials = study.trials()
    assert {t.owner for t in trials} - {t.id for t in trials}
    missing = [trial.runs for trial in trials]
    for trial in trials:
        for asked in (trial.id, trial.owner):
            assert Choice(only=asked).of(trials, missing) == [trial.runs]


def test_order_and_number() -> None:
    assert len(chosen()) == len(MISSING) == 10
    assert [stride for _, stride, _ in chosen(priority="dear")][:4] == [1] * 4
    assert [stride for _, stride, _ in chosen(priority="cheap")][:6] == [2] * 6
    assert [seed for *_, seed in chosen(priority="seed")] == [0] * 5 + [1] * 5
    assert chosen(priority="seed", max_trials=3) == chosen(priority="seed")[:3]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"only": "pool=min"}, "only: no trial of this grid matches 'pool=min'"),
        ({"only": "pol=max"}, "only: unknown name 'pol'; did you mean pool"),
        ({"only": "max"}, "only: expected field=value"),
        ({"only": "stride=x"}, "stride: expected"),
        ({"only": "stride=1,stride=2"}, "only: stride is given twice"),
        ({"priority": "fast"}, "priority: unknown name 'fast'"),
        ({"max_trials": 0}, "max_trials: expected an integer >= 1, got 0"),
    ],
)
def test_mistakes(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Choice(**options).of(TRIALS, MISSING)


def test_forecast_before_and_after(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = forecast(plan(STUDY.trials(), store), workers=2)
    assert (before.trials, len(before.run), before.compilations) == (12, 10, 5)
    assert "cost model" in before.basis
    assert sum(cost for _, cost in before.run) >= 5 * COMPILE_SECONDS
    # Only the first trial of a program compiles it; seeds are side by side in the grid.
    costs = [cost for _, cost in before.run]
    assert all(
        a == pytest.approx(b + COMPILE_SECONDS)
        for a, b in zip(costs[::2], costs[1::2], strict=True)
    )
    assert not list(tmp_path.iterdir())
    # A line says what tells its trial apart, and nothing that all share.
    first = before.text().splitlines()[0]
    assert first.split()[3:] == ["pool=max", "window=3", "stride=1", "seed=0"]
    for config in MISSING[:4]:
        took = 10.0 if config.pool == "max" and config.stride == 1 else 4.0
        store.trial(trial_id(config)).finish(
            {
                "id": trial_id(config),
                "config": to_dict(config),
                "status": "done",
                "seconds": took,
                "metrics": {},
            }
        )
    after = forecast(plan(STUDY.trials(), store), workers=1)
    assert "4 finished trials" in after.basis
    assert len(after.run) == 6
    assert all(seconds > 0 for _, seconds in after.run)
    assert after.seconds == pytest.approx(sum(seconds for _, seconds in after.run))
    assert "6 of 12 trials to run, 3 distinct compilations" in after.text()
    crowd = forecast(plan(STUDY.trials(), store), workers=10**12)
    assert crowd.seconds == max(seconds for _, seconds in after.run)


def test_every_program_once_before_its_repetitions_and_dear_trials_first():
    grid = [
        Config(pool="max", stride=stride, epochs=1, seed=seed)
        for stride in (3, 1, 2)
        for seed in (4, 0)
    ]
    order = [(c.stride, c.seed) for c in in_order(grid)]
    assert order == [(1, 4), (2, 4), (3, 4), (1, 0), (2, 0), (3, 0)]

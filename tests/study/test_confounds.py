"""Confound cards: by hand for small networks; widths that make arms cost the same."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pandas as pd
import pytest

from cnnjax import build
from cnnjax.config import Config
from cnnjax.study.confounds import COLUMNS, apart, body, confounds, matched, parameters, widths_like
from cnnjax.study.grid import Condition, Study
from cnnjax.study.results import independent

TINY = "digits_canvas:side=18:scale=1:train=40:test=20"
BASE = Config(
    padding="CIRCULAR",
    head="gap",
    widths=(4, 8),
    dense=(),
    dataset=TINY,
    window=3,
    stride=3,
    pool="max",
)
SHAPE = (18, 18, 1)


def test_a_body_by_hand() -> None:
    found = body(build.build_net(BASE, 10, SHAPE), SHAPE)
    assert found.parameters == (9 * 4 + 4) + (9 * 4 * 8 + 8) + (8 * 10 + 10)
    products = 18 * 18 * 9 * 4 + 6 * 6 * 9 * 4 * 8 + 8 * 10
    assert 2 * products <= found.flops < 2 * products * 1.5  # rectifiers and pools beside them
    assert (found.resolution, found.stride) == ((2, 2), (9, 9))
    # conv 3: 3, pool 3: 5, conv 3 on a lattice of 3: 11, pool 3: 17
    assert found.field == (17, 17)
    assert found.phase == (0, 0)
    assert found.gain == 1.0


def test_gain_and_phase() -> None:
    sums = dataclasses.replace(BASE, pool="sum", padding="SAME")
    found = body(build.build_net(sums, 10, SHAPE), SHAPE)
    assert found.gain == 81.0
    learned = dataclasses.replace(BASE, pool="lenet_subsample")
    assert pd.isna(body(build.build_net(learned, 10, SHAPE), SHAPE).gain)
    valid = dataclasses.replace(BASE, pool="mean", padding="VALID", widths=(4,))
    assert body(build.build_net(valid, 10, SHAPE), SHAPE).phase == (2.0, 2.0)


@pytest.mark.parametrize(
    ("pool", "field", "stride"),
    # 3 x 3, one of three phases, 3 x 3 of those, one of three again: 3, 5, 11, 17 pixels.
    [("aps", (17, 17), (9, 9)), *((name, None, None) for name in ("spectral", "lip"))],
)
def test_what_a_pool_really_sees(pool: str, field: Any, stride: Any) -> None:
    """A phase chosen by content may be any of them; a spectrum or a norm over the map sees all."""
    config = dataclasses.replace(BASE, pool=pool, window=None)
    found = body(build.build_net(config, 10, SHAPE), SHAPE)
    assert (found.field, found.stride) == (field, stride)
    card = confounds(Study(name="s", question="?", base=config, axes={"seed": (0,)})).iloc[0]
    assert card["receptive_field"] == ("global" if field is None else "17x17")


@pytest.mark.slow
def test_branches_lie_beside_each_other() -> None:
    """By hand: the widest branch of each inception, 5 x 5, adds 4 units' steps to the field."""
    shape = (224, 224, 3)
    found = body(build.build_net(Config(net="googlenet"), 10, shape), shape)
    stem = 7 + 2 * 2 + 2 * 4 + 2 * 4  # 7/2, pool 3/2, 3 x 3, pool 3/2
    widest = stem + 2 * 4 * 8 + 2 * 8 + 5 * 4 * 16 + 2 * 16 + 2 * 4 * 32
    assert (found.field, found.stride) == ((widest, widest), (32, 32))


STUDY = Study(
    name="s",
    question="?",
    base=BASE,
    axes={"pool": ("max", "lps"), "stride": (1, 3), "seed": (0, 1)},
)


def test_a_card_for_every_arm() -> None:
    runs = pd.DataFrame(
        [
            {
                "id": f"{seed}",
                "pool": "max",
                "stride": 3,
                "seed": seed,
                "status": "done",
                "same_as": "",
                "seconds": s,
            }
            for seed, s in ((0, 2.0), (1, 4.0))
        ]
    )
    table = confounds(STUDY, runs)
    assert tuple(table.columns) == ("pool", "stride", *COLUMNS)
    assert len(table) == 4
    row = table[(table["pool"] == "max") & (table["stride"] == 3)].iloc[0]
    assert (row["seconds"], row["total_stride"], row["resolution"]) == (3.0, "9x9", "2x2")
    assert table["seconds"].isna().sum() == 3
    assert table.iloc[0]["flops"] > row["flops"]  # stride 1 costs more


@pytest.mark.slow
@pytest.mark.parametrize("cost", ["params", "flops"])
def test_matched_arms_cost_the_same_as_near_as_widths_allow(cost: str) -> None:
    pools = Study(name="s", question="?", base=BASE, axes={"pool": ("max", "lps"), "seed": (0, 1)})
    same = matched(pools, cost, {"pool": "max"})
    column = {"params": "parameters", "flops": "flops"}[cost]
    before, after = (confounds(s)[column].tolist() for s in (pools, same))
    assert after[0] == before[0]  # the reference keeps its widths
    assert abs(after[1] - after[0]) < abs(before[1] - before[0])
    assert apart(same, cost, {"pool": "max"}) == pytest.approx(abs(after[1] / after[0] - 1))
    assert abs(after[1] / after[0] - 1) < 0.15
    assert len(same.trials()) == 4
    assert all(trial.config.widths for trial in same.trials())
    back = Study.from_description(json.loads(json.dumps(same.describe())))
    assert back.trials() == same.trials()


def test_no_neighbour_is_nearer() -> None:
    same = matched(STUDY.changed({"stride": (3,)}), "params", {"pool": "max"})
    arm = next(t.config for t in same.trials() if t.config.pool == "lps")
    target = parameters(build.build_net(BASE, 10, SHAPE), SHAPE)

    def gap(widths: tuple[int, int]) -> int:
        net = build.build_net(dataclasses.replace(arm, widths=widths), 10, SHAPE)
        return abs(parameters(net, SHAPE) - target)

    assert arm.widths is not None
    a, b = arm.widths
    near = [(a - 1, b), (a + 1, b), (a, b - 1), (a, b + 1)]
    assert gap((a, b)) <= min(gap(w) for w in near if min(w) > 0)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="match: unknown name 'time'"):
        matched(STUDY, "time")
    with pytest.raises(ValueError, match="match: the reference arm pool=min, stride=1 is not in"):
        matched(STUDY, "params", {"pool": "min"})


def test_an_arm_that_does_not_fit_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    arm = dataclasses.replace(BASE, pool="lps", widths=(4, 8, 8))
    asked: list[Config] = []
    real = build.build_net

    def watched(config: Config, *rest: Any) -> Any:
        asked.append(config)
        return real(config, *rest)

    monkeypatch.setattr(build, "build_net", watched)
    with pytest.raises(ValueError, match=r"stride: \(3, 3\) is larger than the map"):
        widths_like(arm, BASE, "params", SHAPE, 10)
    assert asked == [BASE, arm]


def test_a_match_leaves_the_trials_it_found() -> None:
    widths = STUDY.changed({"pool": ("max",), "widths": ((4, 8), (8, 16))})
    with pytest.raises(ValueError, match="differ in widths alone, got 8 trials that would become"):
        matched(widths, "params")
    few = Condition("max at one seed", lambda config: config.pool != "max" or config.seed == 0)
    with pytest.raises(
        ValueError, match=r"every arm at every seed.*got 6 trials that would become"
    ):
        matched(dataclasses.replace(STUDY, conditions=(few,)), "params", {"pool": "max"})


def test_axes_that_others_decide_tell_no_arms_apart() -> None:
    runs = pd.DataFrame({"pool": ["max", "max", "aps"], "widths": ["4", "4", "3"], "stride": 2})
    assert independent(runs, ["pool", "widths", "stride"]) == ["pool"]
    runs = pd.DataFrame({"pool": ["max", "max", "aps"], "stride": [1, 2, 2]})
    assert independent(runs, ["pool", "stride"]) == ["pool", "stride"]

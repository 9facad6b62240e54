"""Markup, axes, Pareto front, and commands that give the same trial again."""

from __future__ import annotations

import ast
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_checks import Page

from cnnjax.cli.flags import Flags
from cnnjax.config import Config, trial_id
from cnnjax.study.report import svg, train_command
from cnnjax.study.report.markup import join, number, numeric, tag
from cnnjax.study.report.pictures import front


@given(st.text())
def test_text_comes_back_from_markup(text: str) -> None:
    page = Page(tag("p", text, tag("b", text), title=text))
    assert "".join(page.text) == text.replace("\r\n", "\n").replace("\r", "\n") * 2 or "\r" in text
    assert page.all("p")[0]["title"] == text


def test_absent_attributes_and_numbers() -> None:
    assert tag("td", "x", class_=None, open=False, hidden=True) == "<td hidden>x</td>"
    assert [number(v) for v in (None, float("nan"), float("inf"), 0.5)] == ["–", "–", "–", "0.500"]
    assert "data-value" not in numeric(float("nan"))
    assert 'data-value="0.125"' in numeric(0.125)
    assert join(["<", tag("b")]) == "&lt;<b></b>"


values = st.floats(-1e6, 1e6)


@given(values, values)
def test_ticks_lie_within_and_points_on_the_page(a: float, b: float) -> None:
    low, high = svg.around([a, b])
    assert low < min(a, b) and high > max(a, b)
    found = svg.ticks((low, high))
    assert all(low - 1e-6 * (high - low) <= t <= high + 1e-6 * (high - low) for t in found)
    plane = svg.Plane((low, high), (low, high))
    x, y = plane.at(a, b)
    assert plane.left <= x <= plane.width - plane.right
    assert plane.top <= y <= plane.height - plane.bottom


def test_up_is_up() -> None:
    plane = svg.Plane((0, 1), (0, 1))
    assert plane.at(0, 1)[1] < plane.at(0, 0)[1]
    assert plane.at(1, 0)[0] > plane.at(0, 0)[0]


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(points)
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    def dominated(p: tuple[int, int]) -> bool:
        return any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)

    wanted = {i for i, p in enumerate(points) if not dominated(p)}
    assert set(front(points)) == wanted


CONFIGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "tuples": {"pool": "max", "window": (3, 2), "stride": (2, 1), "widths": (4,), "dense": ()},
    "parameters": {"pool": "lp:p=3:reduce=sum", "head": "gap", "lr": 1e-05, "seed": 12},
    "paths": {"data_dir": '/my data/it\'s "here"; $HOME `x` & <y>'},
    "no window": {"pool": "aps", "window": 3, "padding": "CIRCULAR"},
    "scopes": {"parallel": "pmap", "bn_scope": "device", "threads": 3, "devices": 0},
    "comma": {"data_dir": "/a,b", "norm": "batch"},
    "a field set to its none": {"norm": "none", "data_dir": "it's"},
}


def parsed(command: str) -> Config:
    """Read a command back as its program would."""
    words = shlex.split(command)
    if words[0] == "cnnjax":
        flags = Flags("train", "")
        flags.config(sweep=False)
        assert words[1] == "train" and flags.parse(words[2:]) == []
        return Config(**{name: v[0] for name, v in flags.given_config().items()})
    assert words[:2] == ["python", "-c"]
    calls = [node for node in ast.walk(ast.parse(words[2])) if isinstance(node, ast.Call)]
    call = next(c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "Config")
    return Config(**{k.arg: ast.literal_eval(k.value) for k in call.keywords})  # type: ignore[misc]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_command_gives_the_same_trial_again(name: str) -> None:
    config = Config(**CONFIGS[name])
    back = parsed(train_command(config))
    assert back == config
    assert trial_id(back) == trial_id(config)

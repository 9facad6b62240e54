"""Flags derive from Config; the command line never shows a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnjax.cli import VERBS, main
from cnnjax.cli.flags import Flags
from cnnjax.cli.study import choose, load
from cnnjax.config import FIELDS

Capture = pytest.CaptureFixture[str]


def flags(*words: str, sweep: bool = True) -> Flags:
    found = Flags("study", "help")
    found.config(sweep=sweep)
    found.parse(words)
    return found


def test_commas_are_values_and_x_makes_tuples() -> None:
    given_ = flags("--window=2,3x2", "--widths=32x64,8", "--pool=max,blur:filter_size=5")
    assert given_.given_config() == {
        "window": (2, (3, 2)),
        "widths": ((32, 64), (8,)),
        "pool": ("max", "blur:filter_size=5"),
    }


def test_of_a_flag_given_twice_the_last_counts_and_that_is_said(capsys: Capture) -> None:
    found = flags("--pool=max", "--seed=1", "--pool=mean")
    assert found.given_config() == {"pool": ("mean",), "seed": (1,)}
    assert capsys.readouterr().err == "cnnjax: --pool is given 2 times; the last counts\n"


def test_a_comma_of_a_name_itself() -> None:
    given_ = flags(r"--dataset=mnist,folder:/a\,b:size=8", r"--data_dir=/c\,d").given_config()
    assert given_ == {
        "dataset": ("mnist", "folder:path=/a,b:size=8"),
        "data_dir": ("/c,d",),
    }
    one = flags("--dataset=folder:/a,b:size=8", "--data_dir=/c,d", sweep=False).given_config()
    assert one == {"dataset": ("folder:path=/a,b:size=8",), "data_dir": ("/c,d",)}


def test_every_field_is_a_flag_with_help(capsys: Capture) -> None:
    assert main(["study", "--help"]) == 0
    text = capsys.readouterr().out
    for name, field in FIELDS.items():
        assert f"--{name}\n" in text
        assert field.metadata["help"] in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: Capture) -> None:
    assert main([verb, "--help"]) == 0
    assert f"cnnjax {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stduy"], "did you mean study"),
        (["study", "--pol=max"], "Did you mean: pool"),
        (["study", "--pool=maxx"], "did you mean max"),
        (["study", "--pool=max,maxx"], "did you mean max"),
        (["study", "--pool=max:windw=3"], "windw"),
        (["study", "--net=cn"], "did you mean cnn"),
        (["study", "--dataset=mnits"], "did you mean mnist"),
        (["study", "--stride=0"], "stride: expected an int >= 1"),
        (["study", "--stride=two"], "stride: expected int or AxB"),
        (["study", "--stride=-2"], "stride: expected an int >= 1"),
        (["study", "--workers=0"], "workers"),
        (["study", "pooling_and_strid"], "did you mean pooling_and_stride"),
        (["study", "nowhere.py"], "no study file"),
        (["study", "a", "b"], "expected one study"),
        (["study", "--pool=aps", "--stride=5"], "does not divide"),
        (["study", "--window=99", "--padding=VALID", "--pool=max"], "larger than the map"),
        (["study", "--window=99", "--padding=CIRCULAR", "--pool=max"], "larger than the map"),
        (["study", "--dataset=mnist", "--data_dir=/nowhere"], "/nowhere"),
        (["train", "--pool=max,mean"], "is a list"),
        (["train", "words"], "expected flags only"),
        (["report"], "expected a study directory"),
        (["report", "/nowhere"], "no study here"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], said: str, capsys: Capture) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    assert not captured.out


def test_unknown_commands_list_all(capsys: Capture) -> None:
    assert main(["zzz"]) == 2
    assert "choose from" in capsys.readouterr().err
    assert main([]) == 0
    assert "usage" in capsys.readouterr().out


WORDS = st.text(st.characters(codec="ascii", exclude_characters="\x00"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FIELDS)), WORDS)
def test_fuzzed_values_read_or_name_the_flag(name: str, text: str) -> None:
    try:
        found = flags(f"--{name}={text}").given_config()
    except Exception as error:
        assert name in str(error)
        assert type(error).__module__.startswith("absl")
    else:
        assert len(found[name]) >= 1


def test_a_grid_of_its_own_and_a_study_changed() -> None:
    grid = choose([], flags("--pool=max,mean", "--stride=1,2", "--seed=0,1", "--dataset=mnist"))
    assert grid.axes == {"pool": ("max", "mean"), "stride": (1, 2), "seed": (0, 1)}
    assert (grid.name, grid.base.dataset) == ("grid", "mnist")
    assert choose([], flags()) == load("pooling_and_stride")
    changed = choose(["pooling_and_stride"], flags("--seed=5", "--padding=SAME"))
    assert (changed.base.seed, changed.base.padding) == (5, "SAME")
    assert "seed" not in changed.axes

"""The name:key=value language and its errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnjax import spec

WORDS = st.text("abcdefghij_", min_size=1, max_size=8)
VALUES = st.one_of(
    st.integers(-999, 999),
    st.booleans(),
    st.floats(-100, 100, allow_nan=False).filter(lambda v: not v.is_integer()),
    WORDS.filter(lambda w: w not in ("true", "false", "inf", "nan", "infinity")),
)


@given(WORDS, st.dictionaries(WORDS, VALUES, max_size=4))
def test_parse_inverts_format(name: str, params: dict[str, object]) -> None:
    assert spec.parse(spec.format(name, params)) == (name, params)


@given(st.permutations(["p=3", "reduce=sum", "k=2"]))
def test_order_of_parameters_does_not_matter(parts: list[str]) -> None:
    assert spec.format(*spec.parse(":".join(["lp", *parts]))) == "lp:k=2:p=3:reduce=sum"


def test_bare_second_part_is_a_path() -> None:
    assert spec.parse("folder:pictures/cats") == ("folder", {"path": "pictures/cats"})


@pytest.mark.parametrize(
    "path", ["/at/12:30/pictures", "a:b:c", "runs/lr=0.1", "/a=b:/c=d", "my pictures, old", "a::b"]
)
def test_paths_may_have_colons_and_equal_signs(path: str) -> None:
    assert spec.parse(f"folder:{path}") == ("folder", {"path": path})
    params = {"channels": 1, "path": path, "size": 16}
    assert spec.parse(f"folder:{path}:size=16:channels=1") == ("folder", params)
    assert spec.parse(spec.format("folder", params)) == ("folder", params)


@pytest.mark.parametrize("text", ["", ":p=3", "lp:p=3:q", "lp:=3", "lp:p=3:p=4"])
def test_malformed_specs_raise(text: str) -> None:
    with pytest.raises(ValueError):
        spec.parse(text)


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"pool: unknown name 'maxx'; did you mean max\b"):
        spec.find({"max": 1, "softpool": 2}, "maxx", "pool")
    with pytest.raises(ValueError, match="choose from max, softpool"):
        spec.find({"max": 1, "softpool": 2}, "zzz", "pool")
    with pytest.raises(TypeError, match="pool: expected a name"):
        spec.find({"max": 1}, 3, "pool")

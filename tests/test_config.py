"""Config: validation names the field, ids are stable, flags read what columns show."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from cnnjax import config as configs
from cnnjax.config import FIELDS, Config, from_dict, read, to_dict, trial_id

# Ids of finished trials on other people's disks: a change here orphans them.
PINNED: dict[str, dict[str, Any]] = {
    "4a1779511a57": {},
    "5e9dced039ac": {"pool": "aps", "stride": 3, "seed": 2},
    "310d930c435e": {"pool": "max", "window": (3, 2), "widths": (8, 16), "lr": 0.01},
}


@pytest.mark.parametrize("name", PINNED)
def test_ids_never_change(name: str) -> None:
    assert trial_id(Config(**PINNED[name])) == name


def test_a_new_field_orphans_no_trial() -> None:
    """An id depends on the fields that differ from their defaults alone."""
    assert configs.identity(Config(seed=1)) == {"seed": 1}
    assert configs.identity(Config(data_dir="elsewhere", devices=2)) == {}


def test_equal_arms_have_one_id() -> None:
    assert trial_id(Config(window=(3, 3))) == trial_id(Config(window=3))
    assert Config(pool="decimate", window=3) == Config(pool="decimate", window=2)
    assert trial_id(Config(pool="max", window=3)) != trial_id(Config(pool="max", window=2))

    # A window counts where either pool of a network has one.
    assert Config(pool="decimate", window=3, last_pool="max").window == 3
    assert Config(pool="decimate", window=3, last_pool="aps").window is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stride", 0),
        ("stride", -1),
        ("stride", (2, 0)),
        ("stride", 1.5),
        ("stride", "2"),
        ("stride", True),
        ("stride", (1, 2, 3)),
        ("window", 0),
        ("pool", "maxx"),
        ("pool", "max:nothing=3"),
        ("last_pool", "maxx"),
        ("net", "rseNet"),
        ("head", "gab"),
        ("dataset", "mnits"),
        ("padding", "same"),
        ("epochs", 0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("lr", -1.0),
        ("dropout", 1.0),
        ("batch_size", 0),
        ("batch_size", 10**400),
        ("batch_size", 10**9),
        ("lr", 10**400),
        ("weight_decay", 1e300),
        ("kernel_size", 99999999999),
        ("window", (3, 2**32)),
        ("widths", (10**25,)),
        ("eval_places", 2**31),
        ("eval_shift", 10**9),
        ("data_workers", 10**6),
        ("widths", (8, 0)),
        ("seed", -1),
        ("eval_places", 1),
        ("optimizer", "adan"),
        ("augment", "flop"),
        ("augment", "flip,cutout"),
        ("augment", 3),
    ],
)
def test_bad_values_name_the_field(field: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        Config(**{field: value})
    text = str(caught.value)
    assert field in text or "nothing" in text
    assert "\n" not in text


def test_json_round_trip() -> None:
    config = Config(window=(3, 2), widths=(4, 8), dense=(), dropout=0.5, pool="max")
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(ValueError, match="did you mean stride"):
        from_dict({"strid": 2})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("window", "3x2", (3, 2)),
        ("window", "3x3", 3),
        ("window", "none", None),
        ("window", "default", None),
        ("norm", "none", "none"),
        ("norm", "default", None),
        ("widths", "32x64", (32, 64)),
        ("widths", "8", (8,)),
        ("dense", "", ()),
        ("lr", "1e-2", 0.01),
        ("pool", "max", "max"),
        ("seed", "3", 3),
        ("augment", "cutout:size=8+flip", "cutout:size=8+flip"),
        ("augment", "", ""),
    ],
)
def test_flag_text(name: str, text: str, value: object) -> None:
    assert read(name, text) == value


@pytest.mark.parametrize(("name", "text"), [("stride", "two"), ("seed", "none"), ("lr", "fast")])
def test_bad_flag_text(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        read(name, text)


def test_every_field_explains_itself() -> None:
    for field in dataclasses.fields(Config):
        assert field.metadata["help"], field.name
        assert FIELDS[field.name] is field or FIELDS[field.name].name == field.name

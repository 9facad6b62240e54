"""Kinds of knobs: how a field of Config reads from flag text, and which values it takes.

    lr: float = knob(0.1, real(0.0, LARGEST), "learning rate")
    integer(1, 8).check("stride", 9)          # ValueError: stride: expected an integer from 1 to 8

`knob` declares a field with its kind and help text; `config.Config` is where all of them stand.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cnnjax import spec
from cnnjax.data import DATASETS
from cnnjax.layers import pooling
from cnnjax.ops import augmentation
from cnnjax.ops import padding as pads

# Of what float32 holds, with room for a schedule's arithmetic.
LARGEST = 1e38
# Beyond what any network or image has: a slip of the finger, told before memory runs out.
WIDEST, LONGEST, MOST_IMAGES = 2**16, 2**12, 2**20


@dataclass(frozen=True)
class Kind:
    """How a field reads from flag text and which values it takes."""

    read: Callable[[str], Any]
    check: Callable[[str, Any], Any]
    metavar: str


def knob(default: Any, kind: Kind, text: str, *, identity: bool = True) -> Any:
    """Declare a field of Config: default, kind and help text; `identity` puts it into trial ids."""
    return dataclasses.field(
        default=default, metadata={"kind": kind, "help": text, "identity": identity}
    )


def _number(convert: Callable[[Any], Any], low: float, high: float, metavar: str) -> Kind:
    name = "an integer" if convert is operator.index else "a number"
    allowed = f"{name} >= {low}" if math.isinf(high) else f"{name} from {low} to {high}"

    def check(field: str, value: Any) -> Any:
        if isinstance(value, (bool, str)):
            raise TypeError(f"{field}: expected {allowed}, got {value!r}")
        try:
            result = convert(value)
        except TypeError:
            raise TypeError(f"{field}: expected {allowed}, got {value!r}") from None
        except OverflowError:
            result = math.inf
        # Not math.isfinite, which raises where an integer is larger than any float.
        if not low <= result <= min(high, sys.float_info.max):
            raise ValueError(f"{field}: expected {allowed}, got {value!r}")
        return result

    return Kind(int if convert is operator.index else float, check, metavar)


def integer(low: int, high: float = math.inf) -> Kind:
    """Return the kind of integers from low to high."""
    return _number(operator.index, low, high, "int")


def real(low: float, high: float = math.inf) -> Kind:
    """Return the kind of real numbers from low to high."""
    return _number(float, low, high, "float")


def choice(names: Iterable[str]) -> Kind:
    """Return the kind of names out of a table."""
    table = dict.fromkeys(names)

    def check(field: str, value: Any) -> Any:
        spec.find(table, value, field)
        return value

    return Kind(str, check, "|".join(table))


def _check_pool(field: str, value: Any) -> str:
    if isinstance(value, str):
        spec.find(pooling.POOLS, spec.parse(value)[0], field)
    _, params = pooling.parse(value)
    return spec.format(spec.parse(value)[0], params)


def _check_head(field: str, value: Any) -> str:
    pooling.parse_head(value)
    return value


def _check_dataset(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field}: expected a name, got {value!r}")
    name, params = spec.parse(value)
    spec.find(DATASETS, name, field)
    return spec.format(name, params)


def _check_augment(field: str, value: Any) -> str:
    del field
    augmentation.parse(value)
    return "+".join(spec.format(*spec.parse(row)) for row in value.split("+")) if value else ""


def _check_pair(field: str, value: Any) -> int | pads.Pair:
    rows, columns = pads.pair(value, field)
    if max(rows, columns) > LONGEST:
        raise ValueError(f"{field}: expected at most {LONGEST}, got {value!r}")
    return rows if rows == columns else (rows, columns)


def _check_widths(field: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        value = (value,)
    return tuple(integer(1, WIDEST).check(field, item) for item in value)


def _read_tuple(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x")) if text else ()


def _read_pair(text: str) -> int | tuple[int, ...]:
    return _read_tuple(text) if "x" in text else int(text)


def _check_text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field}: expected text, got {value!r}")
    return value


POOL = Kind(str, _check_pool, "NAME[:key=value...]")
HEAD = Kind(str, _check_head, "NAME[:key=value...]")
AUGMENT = Kind(str, _check_augment, "NAME[:key=value...]+NAME...")
DATASET = Kind(str, _check_dataset, "NAME[:key=value...]")
PAIR = Kind(_read_pair, _check_pair, "int or AxB")
WIDTHS = Kind(_read_tuple, _check_widths, "AxBx...")
TEXT = Kind(str, _check_text, "text")

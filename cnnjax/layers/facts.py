"""Facts that cards state about an arm, from its arguments: gain, output channels, equal arms.

facts.area({"window": (3, 3)})            # 9.0, the gain of a sum
facts.max_blur_as({"window": (3, 3), "stride": (2, 2), "filter_size": 1})     # "max"
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Arguments = Mapping[str, Any]
IDENTITY = "decimate"


def area(arguments: Arguments) -> float:
    """Gain of a sum: the number of the window's values."""
    return float(math.prod(arguments["window"]))


def lp_gain(arguments: Arguments) -> float:
    """Gain of lp on a positive constant."""
    summed = arguments.get("reduce", "mean") == "sum"
    return area(arguments) ** (1 / arguments.get("p", 2.0)) if summed else 1.0


def max_mean_gain(arguments: Arguments) -> float:
    """Gain of max_mean."""
    return 2.0 if arguments.get("combine", "mean") == "sum" else 1.0


def haar_gain(arguments: Arguments) -> float | None:
    """Gain of the low band; all bands together have no common one."""
    low = arguments.get("bands", "low") == "low"
    return math.sqrt(math.prod(arguments["stride"])) if low else None


def unknown(arguments: Arguments) -> None:
    """The gain depends on trained parameters or on chance."""


def block_channels(arguments: Arguments) -> int:
    """Output channels an input channel of space_to_depth."""
    return math.prod(arguments["stride"])


def haar_channels(arguments: Arguments) -> int:
    """Output channels an input channel of haar."""
    return 1 if arguments.get("bands", "low") == "low" else block_channels(arguments)


def max_mean_channels(arguments: Arguments) -> int:
    """Output channels an input channel of max_mean."""
    return 2 if arguments.get("combine", "mean") == "concat" else 1


def box_is_stride(arguments: Arguments) -> bool:
    """A box as wide as the stride vanishes at every alias of it."""
    return arguments["window"] == arguments["stride"]


def always(arguments: Arguments) -> bool:
    """Nothing is left above the new Nyquist frequency, or nothing is lost."""
    return True


def binomial_vanishes(arguments: Arguments) -> bool:
    """(1 + z)^(m - 1) has its only zero at z = -1, the one alias of stride 2."""
    blurs = arguments.get("filter_size", 3) >= 2
    return all(s == 1 or (s == 2 and blurs) for s in arguments["stride"])


def at_window_1(arguments: Arguments) -> str | None:
    """A mean or order statistic of one value is that value."""
    return IDENTITY if arguments["window"] == (1, 1) else None


def at_stride_1(arguments: Arguments) -> str | None:
    """One component of one, or the whole spectrum, is the map."""
    return IDENTITY if arguments["stride"] == (1, 1) else None


def blur_as(arguments: Arguments) -> str | None:
    """A filter of one tap is the identity."""
    return IDENTITY if arguments.get("filter_size", 3) == 1 else None


def gaussian_as(arguments: Arguments) -> str | None:
    """A filter of one tap is the identity."""
    return IDENTITY if arguments.get("filter_size", 5) == 1 else None


def max_blur_as(arguments: Arguments) -> str | None:
    """Without one half, max_blur is the other.

    Not the maximum under SAME at a stride: what is sampled there is the dense map, at 0, s, 2s.
    """
    size = arguments.get("filter_size", 3)
    if size == 1:
        moved = arguments.get("padding") == "SAME" and arguments["stride"] != (1, 1)
        return at_window_1(arguments) or (None if moved else "max")
    return _with("blur", "filter_size", size, 3) if arguments["window"] == (1, 1) else None


def max_mean_as(arguments: Arguments) -> str | None:
    """Of one value maximum and mean agree."""
    return at_window_1(arguments) if arguments.get("combine", "mean") == "mean" else None


def beta_softmax_as(arguments: Arguments) -> str | None:
    """Two points of the family have names of their own."""
    named = {0: "mean", 1: "softpool"}.get(arguments.get("beta", 1.0))
    return at_window_1(arguments) or named


def max_aps_as(arguments: Arguments) -> str | None:
    """At stride 1 there is nothing to select, at window 1 no maximum."""
    if arguments["window"] == (1, 1):
        return at_stride_1(arguments) or aps_as(arguments)
    return "max" if arguments["stride"] == (1, 1) else None


def aps_blur_as(arguments: Arguments) -> str | None:
    """At stride 1 there is nothing to select, at one tap no blur."""
    size = arguments.get("filter_size", 3)
    if size == 1:
        return at_stride_1(arguments) or aps_as(arguments)
    return _with("blur", "filter_size", size, 3) if arguments["stride"] == (1, 1) else None


def aps_as(arguments: Arguments) -> str:
    """Selection alone, with the norm of these arguments."""
    return _with("aps", "p", arguments.get("p", 2), 2)


def _with(name: str, key: str, value: Any, default: Any) -> str:
    return name if value == default else f"{name}:{key}={value}"

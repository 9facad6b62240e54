"""View: which pixels of an image a unit depends on; RULES: how each operation changes it.

    RULES["conv_general_dilated"](equation, [view, None])       # a View, None, or everything

Along one axis of the image a unit sees the pixels low + s to high + s, where s is the sum of steps
times the unit's index. Behind a transposed convolution steps are fractions, and the pixels that are
seen lie between the two. Borders continue the map, so that numbers below 0 or beyond the image
stand for padding, zeros or wrapped pixels alike. As gradients do, a view follows values and not
choices: comparisons, indices and what `stop_gradient` cuts off see nothing. What an operation mixes
in no regular way is seen from end to end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class View:
    """Pixels `low` to `high` that the unit of index 0 sees; `steps`, one an axis, move them."""

    low: float
    high: float
    steps: tuple[float, ...]

    @classmethod
    def everything(cls, ndim: int) -> View:
        """Return the view of values that may depend on every pixel."""
        return cls(-math.inf, math.inf, (0,) * ndim)

    @property
    def extent(self) -> float:
        """Pixels from the first to the last one seen."""
        return self.high - self.low + 1

    @property
    def step(self) -> float:
        """Pixels between neighbouring units; 0 where no axis moves, or several do."""
        moving = [step for step in self.steps if step]
        return abs(moving[0]) if len(moving) == 1 else 0

    def widened(self, axis: int, reach: int, step: float = 0) -> View:
        """Return what `reach + 1` neighbours along `axis` see together; they are `step` apart."""
        far = reach * self.steps[axis]
        return View(self.low + min(0, far), self.high + max(0, far), self._with(axis, step))

    def moved(self, axis: int, places: int, every: int = 1) -> View:
        """Return the view of units that start at `places` of this map's and take each `every`."""
        away, step = self.steps[axis] * places, self.steps[axis] * every
        return View(self.low + away, self.high + away, self._with(axis, step))

    def spaced(self, axis: int, places: int) -> View:
        """Return the view where each unit along `axis` has `places - 1` blank ones behind it."""
        if places == 1:
            return self
        return replace(self, steps=self._with(axis, self.steps[axis] / places))

    def _with(self, axis: int, step: float) -> tuple[float, ...]:
        return (*self.steps[:axis], step, *self.steps[axis + 1 :])


Views = list[View | None]
Rule = Callable[[Any, Views], View | None]


# Rules: an equation and its operands' views along one axis of the image -> its output's view. At
# least one operand sees something. RULES, below, says which is whose.


def union(views: Views, shape: Sequence[int]) -> View | None:
    """Return what all see together; where they move differently, from end to end."""
    seeing = [view for view in views if view is not None]
    if not seeing:
        return None
    for axis, size in enumerate(shape):
        # A map of one unit has no neighbours, so its step is whatever the others say.
        steps = {view.steps[axis] for view in seeing} - ({0} if size == 1 else set())
        common = max(steps, key=abs, default=0)
        agree = len(steps) <= 1 or size == 1
        seeing = [v.widened(axis, 0 if agree else size - 1, common if agree else 0) for v in seeing]
    return View(min(v.low for v in seeing), max(v.high for v in seeing), seeing[0].steps)


def _pointwise(equation: Any, views: Views) -> View | None:
    shape = equation.outvars[0].aval.shape
    # A scalar among arrays stands for all of them.
    views = [
        view if view is None or len(view.steps) == len(shape)
        else replace(view, steps=(0,) * len(shape))
        for view in views
    ]  # fmt: skip
    return union(views, shape)


def _unknown(equation: Any, views: Views) -> View:
    return View.everything(len(equation.outvars[0].aval.shape))


def _nothing(equation: Any, views: Views) -> None:
    return None


def _only(views: Views) -> View:
    (view,) = (view for view in views if view is not None)
    return view


def _shape(equation: Any, operand: int = 0) -> tuple[int, ...]:
    return equation.invars[operand].aval.shape


def _axes(view: View, kept: Sequence[int]) -> View:
    """Return the view of an array of the axes `kept`; the others must not move."""
    return replace(view, steps=tuple(0 if axis is None else view.steps[axis] for axis in kept))


def _spread(view: View, shape: Sequence[int], axes: Sequence[int]) -> View:
    """Return the view of what mixes all places along `axes`."""
    for axis in axes:
        view = view.widened(axis, shape[axis] - 1)
    return view


def _reduce(equation: Any, views: Views) -> View:
    axes, shape = equation.params["axes"], _shape(equation)
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    return _axes(_spread(_only(views), shape, axes), kept)


def _along(parameter: str) -> Rule:
    def rule(equation: Any, views: Views) -> View | None:
        axis = equation.params[parameter] if parameter else len(_shape(equation)) - 1
        views = [None if v is None else _spread(v, _shape(equation), [axis]) for v in views]
        return union(views, _shape(equation))

    return rule


def _window(view: View, axis: int, taps: int, stride: int, dilation: int, before: int) -> View:
    start = view.moved(axis, -before)
    return start.widened(axis, (taps - 1) * dilation, start.steps[axis] * stride)


def _reduce_window(equation: Any, views: Views) -> View:
    view, p = _only(views), equation.params
    for axis, taps in enumerate(p["window_dimensions"]):
        view = view.spaced(axis, p["base_dilation"][axis])
        stride, dilation = p["window_strides"][axis], p["window_dilation"][axis]
        view = _window(view, axis, taps, stride, dilation, p["padding"][axis][0])
    return view


def _convolution(equation: Any, views: Views) -> View:
    view, kernel = views
    if kernel is not None or view is None:
        return _unknown(equation, views)
    p, numbers, shape = equation.params, equation.params["dimension_numbers"], _shape(equation, 1)
    result: list[float] = [0] * len(numbers.out_spec)
    view = _spread(view, _shape(equation), [numbers.lhs_spec[1]])
    for index, axis in enumerate(numbers.lhs_spec[2:]):
        view = view.spaced(axis, p["lhs_dilation"][index])
        taps, before = shape[numbers.rhs_spec[2 + index]], p["padding"][index][0]
        strides, dilations = p["window_strides"], p["rhs_dilation"]
        view = _window(view, axis, taps, strides[index], dilations[index], before)
        result[numbers.out_spec[2 + index]] = view.steps[axis]
    result[numbers.out_spec[0]] = view.steps[numbers.lhs_spec[0]]
    return replace(view, steps=tuple(result))


def _dot(equation: Any, views: Views) -> View | None:
    (contracted, batch) = equation.params["dimension_numbers"]
    ranks = [len(_shape(equation, i)) for i in (0, 1)]
    free = [[a for a in range(ranks[i]) if a not in (*contracted[i], *batch[i])] for i in (0, 1)]
    blank = [[None] * len(axes) for axes in free]
    found: Views = []
    for i, view in enumerate(views[:2]):
        if view is not None:
            view = _spread(view, _shape(equation, i), contracted[i])
            kept = [*batch[i], *(free[0] if i == 0 else blank[0]), *(blank[1], free[1])[i]]
            view = _axes(view, kept)
        found.append(view)
    return union(found, equation.outvars[0].aval.shape)


def _pad(equation: Any, views: Views) -> View:
    view = views[0]
    if view is None:
        return _unknown(equation, views)
    for axis, (before, _, inside) in enumerate(equation.params["padding_config"]):
        view = view.spaced(axis, 1 + inside).moved(axis, -before)
    return view


def _slice(equation: Any, views: Views) -> View:
    view, starts = _only(views), equation.params["start_indices"]
    for axis, every in enumerate(equation.params["strides"] or (1,) * len(starts)):
        view = view.moved(axis, starts[axis], every)
    return view


def split(equation: Any, views: Views) -> list[View | None]:
    """Return the views of all outputs of a split; one operand sees something."""
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    starts = itertools.accumulate((int(size) for size in sizes[:-1]), initial=0)
    return [_only(views).moved(axis, start) for start in starts]


def _reversed(equation: Any, views: Views) -> View:
    view, shape = _only(views), _shape(equation)
    for axis in equation.params["dimensions"]:
        view = view.moved(axis, shape[axis] - 1, -1)
    return view


def _concatenate(equation: Any, views: Views) -> View | None:
    """Side by side, the largest part is the map and the others its border, wrapped or mirrored."""
    axis = equation.params["dimension"]
    if not any(view is not None and view.steps[axis] for view in views):
        return union(views, equation.outvars[0].aval.shape)
    sizes = [_shape(equation, i)[axis] for i in range(len(views))]
    largest = max(size for size, view in zip(sizes, views, strict=True) if view is not None)
    able = [i for i, v in enumerate(views) if v is not None and sizes[i] == largest]
    middle = able[(len(able) - 1) // 2]
    view = views[middle]
    assert view is not None
    return view.moved(axis, -sum(sizes[:middle]))


def _stack(equation: Any, views: Views) -> View | None:
    axis, shape = equation.params["axis"], equation.outvars[0].aval.shape
    wider = [v and replace(v, steps=(*v.steps[:axis], 0, *v.steps[axis:])) for v in views]
    return union(wider, shape)


def _broadcast(equation: Any, views: Views) -> View:
    view, shape = _only(views), equation.outvars[0].aval.shape
    steps: list[float] = [0] * len(shape)
    for axis, target in enumerate(equation.params["broadcast_dimensions"]):
        steps[target] = view.steps[axis] if _shape(equation)[axis] == shape[target] else 0
    return replace(view, steps=tuple(steps))


def _tile(equation: Any, views: Views) -> View:
    repeated = [axis for axis, count in enumerate(equation.params["reps"]) if count != 1]
    return _spread(_only(views), _shape(equation), repeated)


def _transpose(equation: Any, views: Views) -> View:
    return _axes(_only(views), equation.params["permutation"])


def _squeeze(equation: Any, views: Views) -> View:
    gone = {axis % len(_shape(equation)) for axis in equation.params["dimensions"]}
    return _axes(_only(views), [a for a in range(len(_shape(equation))) if a not in gone])


def _reshape(equation: Any, views: Views) -> View:
    if 0 in _shape(equation):
        return _unknown(equation, views)  # nothing says which axes belong together
    view = _only(views)
    steps: list[float] = []
    for old, new in _regrouped(_shape(equation), equation.outvars[0].aval.shape):
        moving = [axis for axis, size in old if view.steps[axis] and size != 1]
        sizes = [size for _, size in old if size != 1]
        if len(old) == len(new) == 1:
            steps.append(view.steps[old[0][0]])
        elif not moving:
            steps += [0] * len(new)
        elif len(sizes) <= 1:
            # One axis is split, or kept: its places count row by row over the new axes.
            step = view.steps[moving[0]]
            inner = [math.prod(new[i + 1 :]) for i in range(len(new))]
            steps += [0 if size == 1 else step * n for n, size in zip(inner, new, strict=True)]
        elif [size for size in new if size != 1] == sizes:
            steps += [view.steps[axis] for axis, size in old if size != 1]
        else:
            view = _spread(view, _shape(equation), moving)
            steps += [0] * len(new)
    return replace(view, steps=tuple(steps))


def _regrouped(
    old: Sequence[int], new: Sequence[int]
) -> list[tuple[list[tuple[int, int]], list[int]]]:
    """Return the smallest runs of axes of equal size: [([(old axis, size)], [new sizes])]."""
    runs, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        left, right = [(i, old[i])] if i < len(old) else [], [new[j]] if j < len(new) else []
        i, j = i + len(left), j + len(right)
        while (a := math.prod(size for _, size in left)) != (b := math.prod(right)):
            if a < b:
                left.append((i, old[i]))
                i += 1
            else:
                right.append(new[j])
                j += 1
        runs.append((left, right))
    return runs


def _dynamic_slice(equation: Any, views: Views) -> View:
    view, shape = views[0], _shape(equation)
    if view is None:
        return _unknown(equation, views)
    for axis, size in enumerate(equation.params["slice_sizes"]):
        view = view.widened(axis, shape[axis] - size, view.steps[axis])
    return view


def _gather(equation: Any, views: Views) -> View:
    view, shape = views[0], _shape(equation)
    if view is None:
        return _unknown(equation, views)
    p, numbers = equation.params, equation.params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    cut = [axis for axis, size in enumerate(p["slice_sizes"]) if size != shape[axis]]
    view = _spread(view, shape, cut)
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    steps: list[float] = [0] * len(equation.outvars[0].aval.shape)
    for axis, target in zip(kept, numbers.offset_dims, strict=True):
        steps[target] = view.steps[axis]
    return replace(_spread(view, shape, gone), steps=tuple(steps))


POINTWISE = """
    abs add add_any atan atan2 cbrt ceil clamp complex conj convert_element_type copy copy_p cos
    cosh div erf erf_inv erfc exp exp2 expm1 floor imag integer_pow log log1p logistic max min mul
    name neg nextafter pow real reduce_precision rem round rsqrt select_n sign sin sinh sqrt square
    sub tan tanh
"""
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(POINTWISE.split(), _pointwise),
    "stop_gradient": _nothing,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _along("axis")),
    "sort": _along("dimension"),
    "top_k": _along(""),
    **dict.fromkeys(
        ("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _reduce_window
    ),
    "conv_general_dilated": _convolution,
    "dot_general": _dot,
    "pad": _pad,
    "slice": _slice,
    "rev": _reversed,
    "concatenate": _concatenate,
    "stack": _stack,
    "broadcast_in_dim": _broadcast,
    "tile": _tile,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
}


def _convolution_products(equation: Any) -> int:
    numbers = equation.params["dimension_numbers"]
    kernel, out = _shape(equation, 1), equation.outvars[0].aval.shape
    return math.prod(out) * math.prod(kernel) // kernel[numbers.rhs_spec[0]]


def _dot_products(equation: Any) -> int:
    ((contracted, _), _) = equation.params["dimension_numbers"]
    shape = _shape(equation)
    return math.prod(equation.outvars[0].aval.shape) * math.prod(shape[a] for a in contracted)


PRODUCTS: Mapping[str, Callable[[Any], int]] = {
    "conv_general_dilated": _convolution_products,
    "dot_general": _dot_products,
}

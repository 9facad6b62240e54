"""What every value of a program sees of its input, and what it costs: read off the traced program.

    reading = read(forward, variables, image, watch=1)      # nothing is computed
    reading.marks["stage1/conv"].views[0]      # rows: View(low=-3, high=6, steps=(0, 4, 0, 0))
    reading.products["stage1/conv"]            # multiplications of convolutions and dot products

A `View` says along one axis of the image which pixels a unit depends on: low + s to high + s, where
s is the sum of steps times the unit's index. Borders continue the map, so that numbers below 0 or
beyond the image stand for padding, zeros or wrapped pixels alike. As gradients do, a view follows
values and not choices: comparisons, indices and what `stop_gradient` cuts off see nothing. What an
operation mixes in no regular way is seen from end to end, and an operation that is not known here
sees everything (`View.everything`), never less than the truth.

`enter` and `leave` mark where a layer begins and ends in the program.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from cnnjax.ops.multilinear import FORWARD

ENTER, LEAVE = "cnnjax>", "cnnjax<"


@dataclass(frozen=True)
class View:
    """Pixels `low` to `high` that the unit of index 0 sees; `steps`, one an axis, move them."""

    low: float
    high: float
    steps: tuple[int, ...]

    @classmethod
    def everything(cls, ndim: int) -> View:
        """Return the view of values that may depend on every pixel."""
        return cls(-math.inf, math.inf, (0,) * ndim)

    @property
    def extent(self) -> float:
        """Pixels from the first to the last one seen."""
        return self.high - self.low + 1

    @property
    def step(self) -> int:
        """Pixels between neighbouring units; 0 where no axis moves, or several do."""
        moving = [step for step in self.steps if step]
        return abs(moving[0]) if len(moving) == 1 else 0

    def widened(self, axis: int, reach: int, step: int = 0) -> View:
        """Return what `reach + 1` neighbours along `axis` see together; they are `step` apart."""
        far = reach * self.steps[axis]
        return View(self.low + min(0, far), self.high + max(0, far), self._with(axis, step))

    def moved(self, axis: int, places: int, every: int = 1) -> View:
        """Return the view of units that start at `places` of this map's and take each `every`."""
        away, step = self.steps[axis] * places, self.steps[axis] * every
        return View(self.low + away, self.high + away, self._with(axis, step))

    def _with(self, axis: int, step: int) -> tuple[int, ...]:
        return (*self.steps[:axis], step, *self.steps[axis + 1 :])


Views = list[View | None]
Both = tuple[View | None, View | None]  # along rows and along columns
Rule = Callable[[Any, Views], View | None]
BLIND: Both = (None, None)


@dataclass(frozen=True)
class Mark:
    """A layer's output: its views along rows and columns (None: sees nothing), shape, dtype."""

    views: Both
    shape: tuple[int, ...]
    dtype: Any


@dataclass
class Reading:
    """The marks of layers in order, and the products of each; "" is outside of all layers."""

    marks: dict[str, Mark] = field(default_factory=dict)
    products: dict[str, int] = field(default_factory=dict)
    open: list[str] = field(default_factory=lambda: [""])

    def note(self, count: int) -> None:
        """Add products to the layer that is open."""
        self.products[self.open[-1]] = self.products.get(self.open[-1], 0) + count


def enter(x: jax.Array, name: str) -> jax.Array:
    """Mark that the layer `name` begins, with x its input."""
    return checkpoint_name(x, ENTER + name)


def leave(y: jax.Array, name: str) -> jax.Array:
    """Mark that the layer `name` ends, with y its output."""
    return checkpoint_name(y, LEAVE + name)


def read(function: Callable[..., Any], *args: Any, watch: int) -> Reading:
    """Trace function(*args) and read it; args[watch] is the image (N, H, W, C)."""
    program = jax.make_jaxpr(function)(*args)
    before = len(jax.tree.leaves(args[:watch]))
    seen = [BLIND] * len(program.jaxpr.invars)
    seen[before] = (View(0, 0, (0, 1, 0, 0)), View(0, 0, (0, 0, 1, 0)))
    reading = Reading()
    _walk(program.jaxpr, seen, reading)
    return reading


def _walk(jaxpr: Any, inputs: Sequence[Both], reading: Reading) -> list[Both]:
    """Return the views of every output from those of every input; note marks and products."""
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def look(atom: Any) -> Both:
        return BLIND if hasattr(atom, "val") else known.get(atom, BLIND)

    for equation in jaxpr.eqns:
        found = _follow(equation, [look(atom) for atom in equation.invars], reading)
        for variable, views in zip(equation.outvars, found, strict=True):
            known[variable] = views if _carries(variable.aval) else BLIND
    return [look(atom) for atom in jaxpr.outvars]


def _follow(equation: Any, seen: Sequence[Both], reading: Reading) -> list[Both]:
    name = equation.primitive.name
    if name == "name":
        _mark(equation, seen[0], reading)
    if name == "cond":
        return _branches(equation, seen[1:], reading)
    inner = _inner(equation)
    if inner is not None:
        return _walk(inner, seen, reading)
    if name in PRODUCTS:
        reading.note(PRODUCTS[name](equation))
    rows, columns = (_apply(equation, [views[axis] for views in seen]) for axis in (0, 1))
    return list(zip(rows, columns, strict=True))


def _mark(equation: Any, views: Both, reading: Reading) -> None:
    name, aval = equation.params["name"], equation.invars[0].aval
    if name.startswith(ENTER):
        reading.open.append(name.removeprefix(ENTER))
    elif name.startswith(LEAVE):
        reading.open.pop()
        reading.marks[name.removeprefix(LEAVE)] = Mark(views, aval.shape, aval.dtype)


def _branches(equation: Any, seen: Sequence[Both], reading: Reading) -> list[Both]:
    """Follow all branches; the one of most products counts, for they are forms of one function."""
    parts = [(branch.jaxpr, Reading()) for branch in equation.params["branches"]]
    found = [_walk(jaxpr, seen, part) for jaxpr, part in parts]
    reading.note(max(sum(part.products.values()) for _, part in parts))
    shapes = [variable.aval.shape for variable in equation.outvars]
    return [
        (_union([rows for rows, _ in same], shape), _union([columns for _, columns in same], shape))
        for same, shape in zip(zip(*found, strict=True), shapes, strict=True)
    ]


def _inner(equation: Any) -> Any:
    """Return the program inside an equation that only calls it, None for others."""
    forward = FORWARD.get(equation.primitive)
    if forward is not None:
        avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
        return jax.make_jaxpr(functools.partial(forward, **equation.params))(*avals).jaxpr
    if equation.primitive.name not in CALLS:
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return getattr(inner, "jaxpr", inner)


def _apply(equation: Any, views: Views) -> list[View | None]:
    if all(view is None for view in views):
        return [None] * len(equation.outvars)
    if equation.primitive.name == "split":
        return _split(equation, views)
    rule = RULES.get(equation.primitive.name)
    if rule is None:
        return [View.everything(len(variable.aval.shape)) for variable in equation.outvars]
    return [rule(equation, views)] * len(equation.outvars)


def _carries(aval: Any) -> bool:
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.inexact)


# Rules: an equation and its operands' views along one axis of the image -> its output's view. At
# least one operand sees something. RULES, below, says which is whose.


def _union(views: Views, shape: Sequence[int]) -> View | None:
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
    return _union(views, shape)


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
        return _union(views, _shape(equation))

    return rule


def _window(view: View, axis: int, taps: int, stride: int, dilation: int, before: int) -> View:
    start = view.moved(axis, -before)
    return start.widened(axis, (taps - 1) * dilation, start.steps[axis] * stride)


def _reduce_window(equation: Any, views: Views) -> View:
    view, p = _only(views), equation.params
    for axis, taps in enumerate(p["window_dimensions"]):
        if view.steps[axis] and p["base_dilation"][axis] != 1:
            return _unknown(equation, views)
        stride, dilation = p["window_strides"][axis], p["window_dilation"][axis]
        view = _window(view, axis, taps, stride, dilation, p["padding"][axis][0])
    return view


def _convolution(equation: Any, views: Views) -> View:
    view, kernel = views
    if kernel is not None or view is None:
        return _unknown(equation, views)
    p, numbers, shape = equation.params, equation.params["dimension_numbers"], _shape(equation, 1)
    result = [0] * len(numbers.out_spec)
    view = _spread(view, _shape(equation), [numbers.lhs_spec[1]])
    for index, axis in enumerate(numbers.lhs_spec[2:]):
        if view.steps[axis] and p["lhs_dilation"][index] != 1:
            return _unknown(equation, views)
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
    return _union(found, equation.outvars[0].aval.shape)


def _pad(equation: Any, views: Views) -> View:
    view = views[0]
    if view is None:
        return _unknown(equation, views)
    for axis, (before, _, inside) in enumerate(equation.params["padding_config"]):
        if inside and view.steps[axis]:
            return _unknown(equation, views)
        view = view.moved(axis, -before)
    return view


def _slice(equation: Any, views: Views) -> View:
    view, starts = _only(views), equation.params["start_indices"]
    for axis, every in enumerate(equation.params["strides"] or (1,) * len(starts)):
        view = view.moved(axis, starts[axis], every)
    return view


def _split(equation: Any, views: Views) -> list[View | None]:
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
        return _union(views, equation.outvars[0].aval.shape)
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
    return _union(wider, shape)


def _broadcast(equation: Any, views: Views) -> View:
    view, shape = _only(views), equation.outvars[0].aval.shape
    steps = [0] * len(shape)
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
    view, steps = _only(views), []
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
    steps = [0] * len(equation.outvars[0].aval.shape)
    for axis, target in zip(kept, numbers.offset_dims, strict=True):
        steps[target] = view.steps[axis]
    return replace(_spread(view, shape, gone), steps=tuple(steps))


CALLS = ("jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint")
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

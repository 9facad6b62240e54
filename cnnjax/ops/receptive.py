"""What every value of a program sees of its input, and what it costs: read off the traced program.

    reading = read(forward, variables, image, watch=1)      # nothing is computed
    reading.marks["stage1/conv"].views[0]      # rows: View(low=-3, high=6, steps=(0, 4, 0, 0))
    reading.products["stage1/conv"]            # multiplications of convolutions and dot products

`enter` and `leave` mark where a layer begins and ends in the program; `ops.views` says what each
operation makes of a view. An operation that is not known there (a loop, a spectrum) sees all there
is, never less than the truth, and products inside a loop are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from cnnjax.ops.plain import plain
from cnnjax.ops.views import PRODUCTS, RULES, View, Views, split, union

ENTER, LEAVE = "cnnjax>", "cnnjax<"
CALLS = ("jit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint")
Both = tuple[View | None, View | None]  # along rows and along columns
BLIND: Both = (None, None)


@dataclass(frozen=True)
class Mark:
    """A layer's input or output: its views along rows and columns (None: none), shape, dtype."""

    views: Both
    shape: tuple[int, ...]
    dtype: Any


@dataclass
class Reading:
    """The marks of layers in order, and the products of each; "" is outside of all layers.

    `marks` are of what the layers give, `entered` of what comes to them.
    """

    marks: dict[str, Mark] = field(default_factory=dict)
    entered: dict[str, Mark] = field(default_factory=dict)
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


def between_marks(call: Callable[..., Any], args: Any, kwargs: Any, name: str) -> Any:
    """Return what a layer returns, marked; of a tuple the first, and only arrays are marked."""
    result = call(enter(args[0], name), *args[1:], **kwargs)
    y, *rest = result if isinstance(result, tuple) else (result,)
    if not hasattr(y, "ndim"):
        return result
    y = leave(y, name)
    return (y, *rest) if isinstance(result, tuple) else y


def read(function: Callable[..., Any], *args: Any, watch: int) -> Reading:
    """Trace function(*args) and read it; args[watch] is the image (N, H, W, C)."""
    program = jax.make_jaxpr(plain(function, *args))(*args)
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
    mark = Mark(views, aval.shape, aval.dtype)
    if name.startswith(ENTER):
        reading.open.append(name.removeprefix(ENTER))
        reading.entered[name.removeprefix(ENTER)] = mark
    elif name.startswith(LEAVE):
        reading.open.pop()
        reading.marks[name.removeprefix(LEAVE)] = mark


def _branches(equation: Any, seen: Sequence[Both], reading: Reading) -> list[Both]:
    """Follow all branches; the one of most products counts, for they are forms of one function."""
    parts = [(branch.jaxpr, Reading()) for branch in equation.params["branches"]]
    found = [_walk(jaxpr, seen, part) for jaxpr, part in parts]
    reading.note(max(sum(part.products.values()) for _, part in parts))
    shapes = [variable.aval.shape for variable in equation.outvars]
    return [
        (union([rows for rows, _ in same], shape), union([columns for _, columns in same], shape))
        for same, shape in zip(zip(*found, strict=True), shapes, strict=True)
    ]


def _inner(equation: Any) -> Any:
    """Return the program inside an equation that only calls it, None for others."""
    if equation.primitive.name not in CALLS:
        return None
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return getattr(inner, "jaxpr", inner)


def _apply(equation: Any, views: Views) -> list[View | None]:
    if all(view is None for view in views):
        return [None] * len(equation.outvars)
    if equation.primitive.name == "split":
        return split(equation, views)
    rule = RULES.get(equation.primitive.name)
    if rule is None:
        return [View.everything(len(variable.aval.shape)) for variable in equation.outvars]
    return [rule(equation, views)] * len(equation.outvars)


def _carries(aval: Any) -> bool:
    return hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.inexact)

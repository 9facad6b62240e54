"""The same function in JAX's own operations alone: (function, examples) -> function.

    f = plain(lambda x: net.apply(variables, x, train=False), x)       # f(x) == net.apply(...)

Our multilinear maps, derivative rules and choices by platform mean something to JAX only. What is
to leave it, an ONNX file for instance, is written with what they compute. Shapes are those of the
examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal

from cnnjax.ops.multilinear import FORWARDS


def plain(function: Callable[..., jax.Array], *examples: Any) -> Callable[..., jax.Array]:
    """Return `function` for arguments of the examples' shapes and types; it has one result."""
    program = jax.make_jaxpr(function)(*examples)
    return lambda *args: _run(program, *jax.tree.leaves(args))[0]


def _run(program: ClosedJaxpr, *args: Any) -> list[Any]:
    values: dict[Any, Any] = {}

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    jaxpr = program.jaxpr
    values |= zip(jaxpr.constvars, program.consts, strict=True)
    values |= zip(jaxpr.invars, args, strict=True)
    for equation in jaxpr.eqns:
        results = _apply(equation, [value(variable) for variable in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [value(variable) for variable in jaxpr.outvars]


def _apply(equation: Any, args: Sequence[Any]) -> Sequence[Any]:
    primitive, params = equation.primitive, equation.params
    if primitive in FORWARDS:
        return _run(jax.make_jaxpr(functools.partial(FORWARDS[primitive], **params))(*args), *args)
    if primitive.name in RULES:
        return RULES[primitive.name](args, params)
    results = primitive.bind(*args, **params)
    return results if primitive.multiple_results else [results]


def _inline(name: str) -> Callable[..., Sequence[Any]]:
    return lambda args, params: _run(params[name], *args)


def _branch(args: Sequence[Any], params: Mapping[str, Any]) -> Sequence[Any]:
    index, *operands = args
    branches = params["branches"]
    if not isinstance(index, jax.core.Tracer):
        return _run(branches[int(index)], *operands)
    runs = [lambda *args, branch=branch: _run(branch, *args) for branch in branches]
    return lax.switch(index, runs, *operands)


def _default_platform(args: Sequence[Any], params: Mapping[str, Any]) -> Sequence[Any]:
    del args
    names = params["platforms"]
    return [np.int32(next(i for i, name in enumerate(names) if name is None))]


def _unstack(args: Sequence[Any], params: Mapping[str, Any]) -> Sequence[Any]:
    (x,), axis = args, params["axis"]
    return [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]


def _stack(args: Sequence[Any], params: Mapping[str, Any]) -> Sequence[Any]:
    axis = params["axis"]
    return [lax.concatenate([lax.expand_dims(x, [axis]) for x in args], axis)]


def _integer_pow(args: Sequence[Any], params: Mapping[str, Any]) -> Sequence[Any]:
    # ONNX has Pow alone, which a converter may write with a wider result.
    (x,), power = args, params["y"]
    if not 0 < power <= MOST_FACTORS:
        return [lax.integer_pow(x, power)]
    return [functools.reduce(lax.mul, [x] * power)]


MOST_FACTORS = 16

RULES: Mapping[str, Callable[[Sequence[Any], Mapping[str, Any]], Sequence[Any]]] = {
    "jit": _inline("jaxpr"),
    "custom_jvp_call": _inline("call_jaxpr"),
    "custom_vjp_call": _inline("call_jaxpr"),
    "cond": _branch,
    "integer_pow": _integer_pow,
    "platform_index": _default_platform,
    "stack": _stack,
    "unstack": _unstack,
}

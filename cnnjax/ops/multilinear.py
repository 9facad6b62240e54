"""Multilinear maps whose transposes are chosen, not derived: (arrays) -> array.

JAX derives the backward pass of a pool or of a convolution from its forward pass, and on CPU what
it derives is the slow part. Here a map is declared with the function that computes it and, for each
argument it is linear in, the function that computes its transpose:

    total = multilinear("total", forward, {0: spread})
    y = total(x, window=(3, 3))           # keywords are static

`jvp`, `vjp`, `vmap`, `scan` and derivatives of every order work, because a tangent of a multilinear
map is the map itself, and a transpose may again be such a map. `jax.custom_vjp` has no forward mode
and `jax.custom_derivatives.linear_call` no `vmap`, hence a primitive.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Function = Callable[..., jax.Array]
# What each map computes, in JAX's own operations, for those who read or export programs.
FORWARDS: dict[Primitive, Function] = {}
# The functions that each map is compiled from.
LOWERED: dict[Primitive, tuple[Function, ...]] = {}


def multilinear(
    name: str,
    forward: Function,
    transposes: Mapping[int, Function],
    *,
    cpu: Function | None = None,
    batch: Callable[..., tuple[jax.Array, int]] | None = None,
    plain: Function | None = None,
    derived: Function | None = None,
) -> Function:
    """Return `forward` as a map linear in each argument of `transposes`, the others constants.

    With `derived`, a form of `forward`, the others are no constants: JAX derives the tangents in
    them from it.

    forward(*args, **static) takes any leading axes on all of its arguments alike (or else `batch`
    says what `vmap` does). `cpu` is its form on that platform, where it differs. transposes[i](
    cotangent, *args, **static) returns the cotangent of argument i; args[i] is there a
    ShapeDtypeStruct. `plain` is the form for those who read or export programs, where it differs.
    """
    primitive = Primitive(f"cnnjax_{name}")
    FORWARDS[primitive] = plain or forward
    LOWERED[primitive] = (forward, cpu or forward)
    primitive.def_impl(_compiled(primitive))
    primitive.def_abstract_eval(functools.partial(_abstract, forward))
    mlir.register_lowering(primitive, mlir.lower_fun(forward, multiple_results=False))
    if cpu is not None:
        lowering = mlir.lower_fun(cpu, multiple_results=False)
        mlir.register_lowering(primitive, lowering, platform="cpu")
    ad.primitive_jvps[primitive] = functools.partial(
        _tangent, primitive, tuple(transposes), derived
    )
    ad.primitive_transposes[primitive] = functools.partial(_transposed, transposes)
    batching.primitive_batchers[primitive] = batch or functools.partial(_leading, primitive)

    @functools.wraps(forward)
    def call(*args: jax.Array, **static: Any) -> jax.Array:
        return primitive.bind(*_varying_alike(args), **static)

    return call


def _varying_alike(args: Sequence[jax.Array]) -> list[jax.Array]:
    """Let each vary over the axes of shard_map that any does: sums over them are transposes."""
    over = [jax.typeof(arg).manual_axis_type.varying for arg in args]
    axes = frozenset().union(*over)
    return [
        arg if own == axes else lax.pcast(arg, tuple(axes - own), to="varying")
        for arg, own in zip(args, over, strict=True)
    ]


def _compiled(primitive: Primitive) -> Function:
    @functools.lru_cache(maxsize=512)
    def compiled(static: tuple[tuple[str, Any], ...]) -> Function:
        return jax.jit(functools.partial(primitive.bind, **dict(static)))

    return lambda *args, **static: compiled(tuple(sorted(static.items())))(*args)


def _abstract(forward: Function, *avals: Any, **static: Any) -> Any:
    arrays = tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals)
    out = _result(forward, arrays, tuple(sorted(static.items())))
    return avals[0].update(shape=out.shape, dtype=out.dtype, weak_type=False)


@functools.lru_cache(maxsize=4096)
def _result(forward: Function, arrays: Any, static: tuple[tuple[str, Any], ...]) -> Any:
    """Return the result's shape and dtype. Asked for at every transformation, hence kept."""
    return jax.eval_shape(functools.partial(forward, **dict(static)), *arrays)


def _tangent(
    primitive: Primitive,
    linear: Sequence[int],
    derived: Function | None,
    primals: Sequence[jax.Array],
    tangents: Sequence[Any],
    **static: Any,
) -> tuple[jax.Array, Any]:
    out = primitive.bind(*primals, **static)
    terms = [
        primitive.bind(*primals[:i], tangents[i], *primals[i + 1 :], **static)
        for i in linear
        if not isinstance(tangents[i], ad.Zero)
    ]
    moving = [i for i, t in enumerate(tangents) if i not in linear and not isinstance(t, ad.Zero)]
    if derived is not None and moving:
        terms.append(_derived(functools.partial(derived, **static), primals, tangents, moving))
    return out, sum(terms[1:], terms[0]) if terms else ad.Zero(jax.typeof(out))


def _derived(
    forward: Function, primals: Sequence[jax.Array], tangents: Sequence[Any], moving: Sequence[int]
) -> jax.Array:
    def of(*values: jax.Array) -> jax.Array:
        given = dict(zip(moving, values, strict=True))
        return forward(*(given.get(i, primal) for i, primal in enumerate(primals)))

    return jax.jvp(of, [primals[i] for i in moving], [tangents[i] for i in moving])[1]


def _transposed(
    transposes: Mapping[int, Function], cotangent: Any, *args: Any, **static: Any
) -> list[Any]:
    (unknown,) = (i for i, arg in enumerate(args) if ad.is_undefined_primal(arg))
    aval = args[unknown].aval
    shaped = list(args)
    shaped[unknown] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
    result: list[Any] = [None] * len(args)
    if isinstance(cotangent, ad.Zero):
        result[unknown] = ad.Zero(aval)
    else:
        result[unknown] = transposes[unknown](cotangent, *shaped, **static)
    return result


def _leading(
    primitive: Primitive, args: Sequence[jax.Array], axes: Sequence[int | None], **static: Any
) -> tuple[jax.Array, int]:
    return primitive.bind(*to_front(args, axes), **static), 0


def to_front(args: Sequence[jax.Array], axes: Sequence[int | None]) -> list[jax.Array]:
    """Move the mapped axis of each argument to the front; repeat arguments that have none."""
    size = next(a.shape[i] for a, i in zip(args, axes, strict=True) if i is not None)
    return [
        jax.numpy.broadcast_to(a, (size, *a.shape)) if i is None else jax.numpy.moveaxis(a, i, 0)
        for a, i in zip(args, axes, strict=True)
    ]

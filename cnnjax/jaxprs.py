"""A traced program said in words: the same words only where the same would be compiled.

    digest = hashlib.sha256()
    for word in words(jax.make_jaxpr(function)(x)):
        digest.update(word)

What stands behind a name is JAX's own or this package's, so that versions and source say the rest;
lowering rules that somebody registers for JAX's own primitives are not seen.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.experimental import hijax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive
from jax.extend.random import threefry_prng_impl

from cnnjax.ops.multilinear import LOWERED

# JAX's own generators of random numbers.
PRNGS = ("threefry2x32", "rbg", "unsafe_rbg")
# From JAX 0.12 on some primitives are objects, given as a parameter.
HI_PRIMITIVES = getattr(hijax, "HiPrim", ())
# Parameters that a program does not depend on once it is traced: rules of differentiation, and a
# function whose jaxpr stands beside it.
TRACED = {
    "custom_jvp_call": {"jvp_jaxpr_fun"},
    "custom_vjp_call": {"fwd_jaxpr_thunk", "bwd"},
    "remat2": {"policy"},
    "reduce": {"computation"},
}


class Unknown(Exception):
    """Something in a program has no value that tells it from another."""


def words(value: Any) -> Iterator[bytes]:
    """Say a value so that no other one is said the same; Unknown where that cannot be done."""
    if isinstance(value, ClosedJaxpr):
        yield from words(value.consts)
        yield from _lines(value.jaxpr)
    elif isinstance(value, Jaxpr):
        yield from _lines(value)
    elif isinstance(value, np.ndarray | np.generic | jax.Array | float | complex):
        yield from _numbers(value, getattr(value, "dtype", None))
    elif isinstance(value, ShapedArray):
        _check_dtype(value.dtype)
        yield repr(value).encode()
    elif isinstance(value, jax.sharding.Mesh):
        yield f"{value!r} {value.devices.tolist()}".encode()
    elif isinstance(value, type(threefry_prng_impl)):
        yield value.name.encode()  # its keys have a type that is known or not
    elif isinstance(value, dict):
        yield from words(sorted(value.items()))
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__}{len(value)}".encode()
        for item in value:
            yield from words(item)
    elif isinstance(value, HI_PRIMITIVES) and _module(value) == "jax":
        yield type(value).__qualname__.encode()
        yield from words(vars(value))
    else:
        yield _plain(value).encode()


def _numbers(value: Any, dtype: Any) -> Iterator[bytes]:
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.extended):  # a constant key
        raise Unknown
    array = np.asarray(value, dtype)
    yield f"{array.dtype}{array.shape}".encode()
    yield array.tobytes()


def _check_dtype(dtype: Any) -> None:
    """Raise Unknown for keys of somebody else's generator, which say only its name."""
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) and dtype not in _key_dtypes():
        raise Unknown


@functools.cache
def _key_dtypes() -> list[Any]:
    return [jax.eval_shape(lambda n=name: jax.random.key(0, impl=n)).dtype for name in PRNGS]


def _plain(value: Any) -> str:
    """Return the text of a value of a known class: others' may say too little."""
    text = repr(value)
    of_others = _module(value) not in ("builtins", "enum", "numpy", "jax", "jaxlib", "cnnjax")
    if of_others or " at 0x" in text or (callable(value) and not isinstance(value, type)):
        raise Unknown
    return text


def _module(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _lines(jaxpr: Jaxpr) -> Iterator[bytes]:
    """Say a jaxpr, its variables by numbers."""
    if jaxpr.effects:  # it calls back into this process
        raise Unknown
    numbers: dict[Any, int] = {}

    def atoms(found: Iterable[Any]) -> Iterator[bytes]:
        for atom in found:
            aval: Any = atom.aval
            yield from words(aval)
            if isinstance(atom, Literal):
                yield from _numbers(atom.val, aval.dtype)
            else:
                yield str(numbers.setdefault(atom, len(numbers))).encode()

    yield from atoms([*jaxpr.constvars, *jaxpr.invars])
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if not _known(equation.primitive):
            raise Unknown
        yield f"{name} {_plain(equation.ctx)}".encode()
        yield from atoms(equation.invars)
        for key in sorted(equation.params.keys() - TRACED.get(name, set())):
            yield key.encode()
            yield from words(equation.params[key])
        yield from atoms(equation.outvars)
    yield from atoms(jaxpr.outvars)


def _known(primitive: Primitive) -> bool:
    """Whether versions and this package's source say what the primitive computes."""
    if primitive in LOWERED:
        return all(map(_of_this_package, LOWERED[primitive]))
    return primitive in _jaxs_own() and primitive.name != "ffi_call"


def _of_this_package(function: Any) -> bool:
    # Not by its __module__, which a wrapper takes over from what it wraps.
    names = getattr(function, "__globals__", {})
    return str(names.get("__name__")).startswith("cnnjax.")


@functools.cache
def _jaxs_own() -> set[Primitive]:
    modules = [module for name, module in sys.modules.items() if name.startswith("jax.")]
    values = itertools.chain.from_iterable(vars(module).values() for module in modules)
    return {value for value in values if isinstance(value, Primitive)}

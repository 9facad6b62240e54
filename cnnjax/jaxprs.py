"""A traced program said in words: the same words only where the same would be compiled.

    digest = hashlib.sha256()
    for word in words(jax.make_jaxpr(function)(x)):
        digest.update(word)

What stands behind a name is JAX's own or this package's, so that versions and source say the rest.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive
from jax.extend.random import threefry_prng_impl

from cnnjax.ops.multilinear import FORWARDS

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
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise Unknown
        yield f"{value.dtype}{value.shape}".encode()
        yield np.asarray(value).tobytes()
    elif isinstance(value, type(threefry_prng_impl)):
        yield value.name.encode()
    elif isinstance(value, jax.sharding.Mesh):
        yield f"{value!r} {value.devices.tolist()}".encode()
    elif isinstance(value, dict):
        yield from words(sorted(value.items()))
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__}{len(value)}".encode()
        for item in value:
            yield from words(item)
    elif _of_jax(value) and hasattr(value, "__dict__"):
        yield type(value).__qualname__.encode()
        yield from words(vars(value))
    else:
        text = repr(value)
        if " at 0x" in text or (callable(value) and not isinstance(value, type)):
            raise Unknown
        yield text.encode()


def _of_jax(value: Any) -> bool:
    """Whether this is one of JAX's newer primitives, an object that is called."""
    return callable(value) and type(value).__module__.startswith("jax.")


def _lines(jaxpr: Jaxpr) -> Iterator[bytes]:
    """Say a jaxpr, its variables by numbers."""
    if jaxpr.effects:  # it calls back into this process
        raise Unknown
    numbers: dict[Any, int] = {}

    def atoms(found: Iterable[Any]) -> Iterator[bytes]:
        for atom in found:
            constant = isinstance(atom, Literal)
            number = "=" if constant else numbers.setdefault(atom, len(numbers))
            yield f"{number}:{atom.aval!r}".encode()
            if constant:
                yield from words(atom.val)

    yield from atoms([*jaxpr.constvars, *jaxpr.invars])
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if not _known(equation.primitive):
            raise Unknown
        yield f"{name} {equation.ctx!r}".encode()
        yield from atoms(equation.invars)
        for key in sorted(equation.params.keys() - TRACED.get(name, set())):
            yield key.encode()
            yield from words(equation.params[key])
        yield from atoms(equation.outvars)
    yield from atoms(jaxpr.outvars)


def _known(primitive: Primitive) -> bool:
    """Whether versions and this package's source say what the primitive computes."""
    ours = FORWARDS.get(primitive)
    if ours is not None:
        return ours.__module__.startswith("cnnjax.")
    return primitive in _jaxs_own() and primitive.name != "ffi_call"


@functools.cache
def _jaxs_own() -> set[Primitive]:
    modules = [module for name, module in sys.modules.items() if name.startswith("jax.")]
    values = itertools.chain.from_iterable(vars(module).values() for module in modules)
    return {value for value in values if isinstance(value, Primitive)}

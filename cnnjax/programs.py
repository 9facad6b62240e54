"""Compiled programs kept on disk by what was traced: the next process traces, loads and runs.

    step = Persistent(steady_jit(step, donate_argnums=0))

JAX's own cache knows a program by its lowered form, and lowering takes a third of a warm start
(docs/benchmarks.md). Here a program's name is a digest of the jaxpr with every constant in it, of
this package's source, the arguments, the compiler's options and JAX's settings: what was changed is
compiled. What cannot be told by its value, such as a call back into Python or another package's
primitive, is left to JAX; so is everything where JAX's cache is off, on accelerators and in several
processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from cnnjax import environment
from cnnjax.compiling import Compiled
from cnnjax.jaxprs import Unknown, words

# Settings of JAX that say where files lie.
PLACES = {"jax_compilation_cache_dir", "jax_dump_ir_to"}
CHECKSUM = hashlib.sha256().digest_size


class Persistent:
    """A compiled function of positional arguments, its program looked for at the first call.

    The values are bit for bit those of the program as it was compiled first.
    """

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._looked, self._program = False, None

    def __call__(self, *args: Any) -> Any:
        if not self._looked:
            self._looked, self._program = True, _program(self._compiled, args)
        if self._program is None:
            return self._compiled(*args)
        try:
            return self._program(*args)
        except (TypeError, ValueError):  # arguments of another form, which a program refuses
            return self._compiled(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Trace for these arguments, as jax.jit's own `lower` does."""
        return self._compiled.lower(*args)


def _program(compiled: Compiled, args: tuple[Any, ...]) -> Any:
    """Return the program for these arguments; None where it is JAX's own business."""
    directory = _directory()
    if directory is None or not _on_the_first_device(args):
        return None
    traced = compiled.trace(*args)
    try:
        path = directory / "programs" / _digest(traced, compiled.settings)
    except Unknown:
        return None
    trees = jax.tree.structure((args, {})), jax.tree.structure(traced.out_info)
    return _loaded(path, *trees) or _compiled_anew(path, traced)


def _directory() -> Path | None:
    """Return where JAX keeps compiled programs; None where none are to be kept here."""
    config: Any = jax.config
    plain = not (config.jax_disable_jit or config.jax_debug_nans or config.jax_debug_infs)
    one = jax.default_backend() == "cpu" and jax.process_count() == 1
    place = config.jax_compilation_cache_dir if config.jax_enable_compilation_cache else None
    return Path(place) if place and plain and one else None


def _on_the_first_device(args: tuple[Any, ...]) -> bool:
    first = {jax.devices()[0]}
    arrays = (leaf for leaf in jax.tree.leaves(args) if isinstance(leaf, jax.Array))
    config: Any = jax.config
    return config.jax_default_device is None and all(x.devices() == first for x in arrays)


def _loaded(path: Path, in_tree: Any, out_tree: Any) -> Any:
    """Return the program of that name; None where there is none, or it is not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, content = content[:CHECKSUM], content[CHECKSUM:]
    if hashlib.sha256(content).digest() != checksum:
        return None
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # XLA's word on a foreign machine's code
        return serialize_executable.deserialize_and_load(
            zlib.decompress(content), in_tree, out_tree, execution_devices=jax.devices()[:1]
        )
    return None


def _compiled_anew(path: Path, traced: Any) -> Any:
    # XLA cannot write a program again that comes out of JAX's cache: what is read then is wrong.
    with _without_jaxs_cache():
        program = traced.lower().compile()
    # A full disk, or a kind of program that cannot be written: the next process compiles again.
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        content, *_ = serialize_executable.serialize(program)
        content = zlib.compress(content, 1)
        _write(path, hashlib.sha256(content).digest() + content)
    return program


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _without_jaxs_cache() -> Iterator[None]:
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks once whether there is one
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


def _digest(traced: Any, settings: Any) -> str:
    digest = hashlib.sha256()
    config = {k: v for k, v in jax.config.values.items() if k not in PLACES}
    flags = os.environ.get("XLA_FLAGS")
    machine = environment.processor(), environment.threads(), flags
    told = environment.code(), machine, config, settings, repr(traced.args_info), traced.jaxpr
    for word in words(told):
        digest.update(word + b"\0")
    return digest.hexdigest()

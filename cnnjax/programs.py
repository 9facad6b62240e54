"""Compiled programs kept on disk by what was traced: the next process traces, loads and runs.

    step = Remembered(steady_jit(step, donate_argnums=0))

JAX's own cache knows a program by its lowered form, and lowering takes a third of a warm start
(docs/benchmarks.md). Here a program's name is a digest of the jaxpr with every constant in it, of
the arguments, this package's source, the compiler's options and JAX's settings: what was changed is
compiled. What cannot be told by its value, such as a call back into Python or another package's
primitive, is left to JAX; so are calls of another form than the first, and everything where JAX's
cache is off, on accelerators, on several devices and in several processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
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

# Of the source as it is imported: later edits are not what runs.
SOURCE = environment.code()
# Settings of JAX that say where files lie.
PLACES = {"jax_compilation_cache_dir", "jax_dump_ir_to"}
CHECKSUM = hashlib.sha256().digest_size
UNUSED_DAYS = 30
_alone = threading.Lock()


class Remembered:
    """A compiled function of positional arguments, its program looked for at the first call.

    The values are bit for bit those of the program as it was compiled first.
    """

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._form: Any = None
        self._program: Any = None

    def __call__(self, *args: Any) -> Any:
        if self._form is not None and self._program is None:  # JAX's own business, at no cost
            return self._compiled(*args)
        form = _form(args)
        if self._form is None:
            self._form, self._program = form, _program(self._compiled, args, form)
        run = self._compiled if self._program is None or form != self._form else self._program
        return run(*args)

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """Trace for these arguments, as jax.jit's own `lower` does."""
        return self._compiled.lower(*args)


def _form(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a program depends on of its arguments, and JAX's settings of each call."""
    leaves, tree = jax.tree.flatten(args)
    config: Any = jax.config
    debugging = config.jax_disable_jit, config.jax_debug_nans, config.jax_debug_infs
    return tree, [*map(_kind, leaves)], debugging, config.jax_default_device


def _kind(leaf: Any) -> tuple[Any, ...]:
    if isinstance(leaf, jax.core.Tracer) or not hasattr(leaf, "aval"):
        return type(leaf), getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    value = leaf.aval
    return type(leaf), value.shape, value.dtype, value.weak_type, leaf.sharding


def _program(compiled: Compiled, args: tuple[Any, ...], form: tuple[Any, ...]) -> Any:
    """Return the program for these arguments; None where it is JAX's own business."""
    directory = _directory()
    static = any(name.startswith("static_") for name in compiled.how)
    if directory is None or static or not _plain(args, form):
        return None
    traced = compiled.trace(*args)
    try:
        path = directory / "programs" / _digest(traced, args, (compiled.how, compiled.wanted))
    except Unknown:
        return None
    trees = jax.tree.structure((args, {})), jax.tree.structure(traced.out_info)
    return _loaded(path, *trees) or _compiled_anew(path, traced, compiled)


def _directory() -> Path | None:
    """Return where JAX keeps compiled programs; None where none are to be kept here."""
    config: Any = jax.config
    place = config.jax_compilation_cache_dir if config.jax_enable_compilation_cache else None
    here = jax.default_backend() == "cpu" and jax.process_count() == 1
    # XLA_FLAGS may be the name of a file, which says other things tomorrow.
    flags = os.environ.get("XLA_FLAGS", "").strip()
    told = not flags or flags.startswith("-")
    return Path(place) if place and "://" not in place and here and told else None


def _plain(args: tuple[Any, ...], form: tuple[Any, ...]) -> bool:
    """Whether the arguments are values, all on the first device, and nothing is debugged."""
    *_, debugging, device = form
    first = {jax.devices()[0]}
    leaves = jax.tree.leaves(args)
    if any(debugging) or device is not None or any(isinstance(x, jax.core.Tracer) for x in leaves):
        return False
    return all(x.devices() == first for x in leaves if isinstance(x, jax.Array))


def _loaded(path: Path, in_tree: Any, out_tree: Any) -> Any:
    """Return the program of that name; None where there is none, or it is not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, content = content[:CHECKSUM], content[CHECKSUM:]
    if hashlib.sha256(content).digest() != checksum:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it is used
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # what XLA does not take is made again
        return serialize_executable.deserialize_and_load(
            zlib.decompress(content), in_tree, out_tree, execution_devices=jax.devices()[:1]
        )
    return None


def _compiled_anew(path: Path, traced: Any, compiled: Compiled) -> Any:
    """Compile a program and keep it; None where that cannot be done."""
    lowered = traced.lower()
    text = lowered.as_text()
    # What is called may need what JAX sets up as it lowers (LAPACK), and there is one device.
    if "custom_call" in text or "mhlo.num_partitions = 1 :" not in text:
        return None
    # XLA cannot write a program again that comes out of JAX's cache: what is read then is wrong.
    with _without_jaxs_cache():
        program = lowered.compile(compiler_options=compiled.options or None)
    try:
        content, *_ = serialize_executable.serialize(program)
    except (ValueError, NotImplementedError):  # a kind of program that JAX cannot write
        return program
    content = zlib.compress(content, 1)
    with contextlib.suppress(OSError):  # a full disk: the next process compiles again
        _write(path, hashlib.sha256(content).digest() + content)
    return program


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and remove those that were not used for long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    oldest = path.stat().st_mtime - UNUSED_DAYS * 24 * 3600
    for other in path.parent.iterdir():
        if other.stat().st_mtime < oldest:
            other.unlink(missing_ok=True)


@contextlib.contextmanager
def _without_jaxs_cache() -> Iterator[None]:
    with _alone:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # JAX asks once whether there is one
        try:
            yield
        finally:
            jax.config.update("jax_enable_compilation_cache", True)
            compilation_cache.reset_cache()


def _digest(traced: Any, args: tuple[Any, ...], settings: Any) -> str:
    digest = hashlib.sha256()
    config = {k: v for k, v in jax.config.values.items() if k not in PLACES}
    flags = os.environ.get("XLA_FLAGS")
    machine = environment.instructions(), environment.threads(), flags
    given = [
        (getattr(x, "sharding", None), getattr(x, "committed", False))
        for x in jax.tree.leaves(args)
    ]
    donated = [info.donated for info in jax.tree.leaves(traced.args_info)]
    told = SOURCE, machine, config, settings, given, donated, traced.jaxpr
    for word in words(told):
        digest.update(word + b"\0")
    return digest.hexdigest()

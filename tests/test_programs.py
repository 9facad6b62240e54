"""A compiled program is found again by the next process, and only where it is the same program."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnnjax import programs
from cnnjax.compiling import Compiled, quick_jit, steady_jit
from cnnjax.programs import Remembered

X = np.random.default_rng(0).standard_normal((8, 8), np.float32)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path) -> Iterator[Path]:
    """Let JAX keep compiled programs, and return where ours lie."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: jax.config.values[name] for name in settings}
    for values in (settings, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is settings:
            yield tmp_path / "programs"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the programs that were not found."""
    names: list[str] = []
    anew = programs._compiled_anew

    def noted(path: Path, *how: Any) -> Any:
        names.append(path.name)
        return anew(path, *how)

    monkeypatch.setattr(programs, "_compiled_anew", noted)
    return names


def step(state: dict[str, jax.Array], x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    y = jnp.tanh(x @ state["w"])
    return {"w": state["w"] - 0.1 * y, "n": state["n"] + 1}, jnp.sum(y)


def state() -> dict[str, jax.Array]:
    return {"w": jnp.asarray(X), "n": jnp.zeros((), jnp.int32)}


def test_a_program_is_found_again_with_its_values(compiled: list[str]) -> None:
    first = Remembered(steady_jit(step, donate_argnums=0))(state(), X)
    again = Remembered(steady_jit(step, donate_argnums=0))
    given = state()
    second = again(given, X)
    assert len(compiled) == 1
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert given["w"].is_deleted()
    third = again(second[0], X)
    assert int(third[0]["n"]) == 2


def scaled(by: float) -> Callable[..., Any]:
    return lambda state, x: step({**state, "w": by * state["w"]}, x)


def test_what_was_changed_is_compiled(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Remembered(steady_jit(scaled(2)))(state(), X)
    Remembered(steady_jit(scaled(2)))(state(), X)
    assert len(compiled) == 1
    others: list[Callable[[], Any]] = [
        lambda: Remembered(steady_jit(scaled(3)))(state(), X),
        lambda: Remembered(steady_jit(scaled(2), donate_argnums=0))(state(), X),
        lambda: Remembered(steady_jit(scaled(2)))(state(), X.astype(np.float16)),
    ]
    for other in others:
        other()
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " ")
    Remembered(steady_jit(scaled(2)))(state(), X)
    monkeypatch.setattr(programs, "SOURCE", "another version")
    Remembered(steady_jit(scaled(2)))(state(), X)
    with jax.default_matmul_precision("float32"):
        Remembered(steady_jit(scaled(2)))(state(), X)
    assert len(set(compiled)) == len(compiled) == 4 + len(others)


def test_which_arguments_are_consumed_is_part_of_the_name(compiled: list[str]) -> None:
    def total(one: Any, other: Any) -> Any:
        return jax.tree.map(lambda x: x + 1, jax.tree.leaves((one, other)))

    def arrays() -> list[jax.Array]:
        return [jnp.asarray(X + i) for i in range(3)]

    (a, b, c), (d, e, f) = arrays(), arrays()
    Remembered(steady_jit(total, donate_argnums=0))((a, b), c)
    Remembered(steady_jit(total, donate_argnums=0))(d, (e, f))
    assert len(set(compiled)) == 2
    assert [x.is_deleted() for x in (a, b, c, d, e, f)] == [True, True, False, True, False, False]


def test_a_program_that_jax_keeps_is_not_taken_from_there(kept: Path) -> None:
    """XLA cannot write a program that it has read: found again, it computes something else."""

    def drawn(seed: np.int32) -> list[jax.Array]:
        keys = jax.random.split(jax.random.key(seed), 4)
        return [jax.random.normal(key, (i, 300)) for i, key in enumerate(keys, start=1)]

    first = steady_jit(drawn)(np.int32(0))
    for _ in range(2):
        jax.clear_caches()
        again = Remembered(steady_jit(drawn))(np.int32(0))
        assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert len(list(kept.iterdir())) == 1


def test_options_are_part_of_the_name(compiled: list[str]) -> None:
    Remembered(quick_jit(step))(state(), X)
    Remembered(quick_jit(step, level=0))(state(), X)
    assert len(set(compiled)) == 2


def test_the_options_reach_the_compiler() -> None:
    wanted = Compiled(step, lambda: {"xla_cpu_of_another_version": True})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_cpu_of_another_version"):
        Remembered(wanted)(state(), X)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:99], lambda b: b""])
def test_a_file_that_is_not_whole_is_made_again(damage: Any, kept: Path) -> None:
    first = Remembered(steady_jit(step))(state(), X)
    (path,) = kept.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = Remembered(steady_jit(step))(state(), X)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert len(path.read_bytes()) > len(whole) / 2


def test_a_turned_bit_is_seen(kept: Path, compiled: list[str]) -> None:
    Remembered(steady_jit(step))(state(), X)
    (path,) = kept.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    Remembered(steady_jit(step))(state(), X)
    assert len(compiled) == 2


def test_arguments_of_another_form_are_taken_too() -> None:
    run = Remembered(steady_jit(lambda x: 2 * x))
    for x in (X, X[:3], X.astype(np.float16), X):
        np.testing.assert_array_equal(run(x), 2 * x)


def test_a_full_disk_costs_nothing_but_the_program(
    monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    _, total = Remembered(steady_jit(step))(state(), X)
    assert np.isfinite(total)
    assert not list(kept.iterdir())


def test_a_call_back_is_left_to_jax(kept: Path) -> None:
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)

    def calling(x: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda x: 2 * x, shape, x)

    np.testing.assert_array_equal(Remembered(steady_jit(calling))(X), 2 * X)
    assert not kept.exists()


def test_a_mistake_is_told_once() -> None:
    def wrong(x: jax.Array) -> jax.Array:
        raise ValueError("stride: expected a positive whole number, got 0")

    with pytest.raises(ValueError, match="stride") as raised:
        Remembered(steady_jit(wrong))(X)
    assert raised.value.__context__ is None


def test_another_device_is_left_to_jax(kept: Path) -> None:
    there = jax.devices()[-1]
    result = Remembered(steady_jit(lambda x: 2 * x))(jax.device_put(X, there))
    assert result.devices() == {there}
    assert not kept.exists()


def test_what_lapack_computes_is_left_to_jax(kept: Path) -> None:
    """Its functions are there only once JAX has lowered a program that calls them."""
    Remembered(quick_jit(lambda x: jnp.linalg.qr(x)[1]))(X)
    assert not kept.exists()


@pytest.mark.parametrize("how", ["constraint", "mesh"])
def test_what_spans_devices_is_left_to_jax(how: str, kept: Path) -> None:
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    spread = NamedSharding(mesh, PartitionSpec("data"))

    def double(x: jax.Array) -> jax.Array:
        return 2 * (jax.lax.with_sharding_constraint(x, spread) if how == "constraint" else x)

    with jax.set_mesh(mesh) if how == "mesh" else contextlib.nullcontext():
        for _ in range(2):
            np.testing.assert_array_equal(Remembered(steady_jit(double))(X), 2 * X)
    assert not kept.exists()


def test_a_weak_type_is_another_form() -> None:
    run = Remembered(steady_jit(lambda x, by: x.astype(jnp.bfloat16) * by))
    assert run(X, np.float32(1.001)).dtype == jnp.float32
    assert run(X, 1.001).dtype == jnp.bfloat16
    weak = jnp.asarray(1.001)
    assert weak.weak_type
    assert run(X, jnp.float32(1.001)).dtype == jnp.float32
    assert run(X, weak).dtype == jnp.bfloat16
    again = Remembered(steady_jit(lambda x, by: x.astype(jnp.bfloat16) * by))
    assert again(X, jnp.float32(1.001)).dtype == jnp.float32
    assert again(X, weak).dtype == jnp.bfloat16


def test_where_arguments_lie_is_part_of_the_name(compiled: list[str]) -> None:
    first = jax.devices()[0]
    committed, free = jax.device_put(X, first), jnp.asarray(X)
    assert Remembered(steady_jit(lambda x: 2 * x))(committed).committed
    assert not Remembered(steady_jit(lambda x: 2 * x))(free).committed
    assert len(compiled) == 2


def test_inside_a_transformation_the_function_is_jax_s() -> None:
    np.testing.assert_array_equal(jax.vmap(Remembered(Compiled(lambda x: 2 * x, dict)))(X), 2 * X)


def test_static_arguments_are_left_to_jax(kept: Path) -> None:
    run = Remembered(steady_jit(lambda x, n: x * n, static_argnums=1))
    np.testing.assert_array_equal(run(X, 3), 3 * X)
    assert not kept.exists()


def test_debugging_begins_when_it_is_asked_for() -> None:
    run = Remembered(steady_jit(lambda x: jnp.log(x)))
    run(np.abs(X))
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        run(-np.abs(X))


def test_a_state_that_was_consumed_is_one_mistake() -> None:
    run, given = Remembered(steady_jit(step, donate_argnums=0)), state()
    run(given, X)
    with pytest.raises((RuntimeError, ValueError), match=r"deleted|donated") as raised:
        run(given, X)
    assert raised.value.__context__ is None


def test_options_in_a_file_are_not_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: Path
) -> None:
    (tmp_path / "flags").write_text("--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    Remembered(steady_jit(step))(state(), X)
    assert not kept.exists()


def test_what_was_not_used_for_long_is_removed(kept: Path) -> None:
    Remembered(steady_jit(scaled(2)))(state(), X)
    (used,) = kept.iterdir()
    long_ago = used.stat().st_mtime - 40 * 24 * 3600
    os.utime(used, (long_ago, long_ago))
    Remembered(steady_jit(scaled(2)))(state(), X)
    (kept / "old").write_bytes(b"")
    os.utime(kept / "old", (long_ago, long_ago))
    Remembered(steady_jit(scaled(3)))(state(), X)
    assert used.exists() and not (kept / "old").exists()


CODE = """
import jax
from cnnjax import build, data
from cnnjax.config import Config
from cnnjax.study.compilation import use_cache
from cnnjax.train.training import train

use_cache()
config = Config(
    net="cnn", widths=(2,), dense=(4,), dataset="shapes:n=20", batch_size=8, epochs=2,
    pool="max_aps", dropout=0.3, norm="batch", ema=0.9,
)
dataset = data.load(config.dataset)
net = build.build_net(config, dataset.num_classes, dataset.image_shape)
variables = train(config, net, dataset)
print([float(abs(x).sum()).hex() for x in jax.tree.leaves(variables)])
"""


@pytest.mark.slow
def test_the_next_process_trains_the_same_without_lowering(tmp_path: Path) -> None:
    env = os.environ | {"CNNJAX_CACHE": str(tmp_path), "JAX_LOG_COMPILES": "1"}
    runs = []
    for seed in ("0", "1"):
        words = [sys.executable, "-c", CODE]
        env["PYTHONHASHSEED"] = seed
        runs.append(subprocess.run(words, env=env, check=True, capture_output=True, text=True))
    assert runs[0].stdout == runs[1].stdout
    lowered = [re.findall(r"Compiling jit\((step|start)\)", run.stderr) for run in runs]
    assert lowered == [["start", "step"], []]

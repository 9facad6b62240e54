"""Where a step runs: on one device, with its batch spread over several, or in several processes.

    plan = make_plan("sharded", devices=8)
    plan.check(batch_size=64)
    step = plan.compile(train_step(..., method=Method(axis_name=plan.axis_name)))
    state = plan.replicate(state)
    state, sums = step(state, plan.place(batch))      # batch: this process's rows, plan.rows(64)

"jit" is one device. "sharded" gives the compiler a batch laid out over a mesh; the step stays the
function of the global batch that it is. "pmap" runs the step once a device, each on its own rows,
and sums gradients over the axis. All three keep one state, equal on every device, and give the
same numbers up to the order of their sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnnjax.compiling import steady_jit
from cnnjax.programs import Remembered

AXIS = "data"
PARALLEL = ("jit", "sharded", "pmap")


@dataclass(frozen=True)
class Plan:
    """How a step is compiled and on which devices; `make_plan` checks and completes one."""

    mode: str
    devices: tuple[Any, ...]

    @property
    def axis_name(self) -> str | None:
        """The axis that the step sums over by itself; None where it sees the global batch."""
        return AXIS if self.mode == "pmap" else None

    def check(self, *, batch_size: int, microbatches: int = 1, unit: str | None = None) -> None:
        """Raise ValueError where the batch does not divide into equal parts.

        An epoch as one dispatch is neither for pmap nor for several processes.
        """
        processes = jax.process_count()
        if unit == "epoch" and (self.mode == "pmap" or processes > 1):
            where = "pmap" if self.mode == "pmap" else f"{processes} processes"
            raise ValueError(f"unit: expected step with {where}, got 'epoch'")
        parts = len(self.devices) * microbatches
        if batch_size % parts:
            what = f"{len(self.devices)} devices x {microbatches} microbatches"
            raise ValueError(
                f"batch_size: expected a multiple of {parts} ({what}), got {batch_size}; "
                f"{max(batch_size // parts, 1) * parts} is one"
            )

    def rows(self, batch_size: int) -> slice:
        """Return which rows of each global batch this process reads."""
        share = batch_size // jax.process_count()
        return slice(jax.process_index() * share, (jax.process_index() + 1) * share)

    def compile(self, step: Any) -> Any:
        """Compile (state, batch) -> (state, sums); the state given is consumed."""
        if self.mode == "jit":
            return Remembered(steady_jit(step, donate_argnums=0))
        if self.mode == "pmap":
            return jax.pmap(
                step,
                AXIS,
                in_axes=(None, 0),
                out_axes=None,
                donate_argnums=0,
                devices=None if jax.process_count() > 1 else self.devices,
            )
        return steady_jit(
            step,
            donate_argnums=0,
            in_shardings=(self._everywhere, self._spread),
            out_shardings=self._everywhere,
        )

    def compile_chunk(self, chunk: Any) -> Any:
        """Compile (state, images, labels, rows, weight) -> (state, sums) of `epoch.many_steps`."""
        if self.mode == "jit":
            return Remembered(steady_jit(chunk, donate_argnums=0))
        whole, rows = self._everywhere, NamedSharding(self._mesh, PartitionSpec(None, AXIS))
        return steady_jit(
            chunk,
            donate_argnums=0,
            in_shardings=(whole, whole, whole, rows, rows),
            out_shardings=whole,
        )

    def replicate(self, state: Any) -> Any:
        """Put one copy of the state, or of a data set, on every device."""
        if self.mode == "jit":
            return jax.device_put(state)
        return jax.tree.map(lambda x: put_like(x, _copy(x), self._everywhere), state)

    def place(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Put this process's rows of a batch where the step wants them."""
        if self.mode == "jit":
            return batch
        if self.mode == "pmap":
            count = len(self.devices) // jax.process_count()
            return {k: v.reshape(count, -1, *v.shape[1:]) for k, v in batch.items()}
        put = jax.make_array_from_process_local_data
        return {name: put(self._spread, value) for name, value in batch.items()}

    def collect(self, tree: Any) -> Any:
        """Return a replicated tree of arrays on one device of this process."""
        if self.mode == "jit":
            return tree
        return jax.device_put(host_copy(tree), jax.local_devices()[0])

    @cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return jax.make_mesh((len(self.devices),), (AXIS,), (AxisType.Auto,), devices=self.devices)

    @cached_property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec())

    @cached_property
    def _spread(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(AXIS))


def make_plan(mode: str | None = None, devices: int | None = None) -> Plan:
    """Return the plan for `devices` devices over all processes; 0 is all there are.

    None: one device, or all where there are several processes. `mode` None: "jit" for one device,
    "sharded" for more. Raises ValueError where the devices do not exist or do not suit the mode.
    """
    there, processes = jax.devices(), jax.process_count()
    count = devices if devices is not None else (1 if processes == 1 else 0)
    count = count or len(there)
    if count > len(there):
        raise ValueError(
            f"devices: expected at most {len(there)} ({there[0].platform}), got {count}"
        )
    if processes > 1 and count < len(there):
        raise ValueError(
            f"devices: expected all {len(there)} of {processes} processes (0), got {count}"
        )
    mode = mode or ("jit" if count == 1 else "sharded")
    if mode == "jit" and count > 1:
        raise ValueError(f"parallel: expected sharded or pmap for {count} devices, got 'jit'")
    return Plan(mode, tuple(there[:count]))


def host_copy(tree: Any) -> Any:
    """Return a replicated tree as numpy arrays of its own; keys as their data."""
    return jax.tree.map(_copy, tree)


def put_like(old: Any, value: np.ndarray, sharding: Any) -> Any:
    """Return `value` (the same in every process) as an array or a random key, as `old` is one."""
    if jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
        data = jax.make_array_from_process_local_data(sharding, value)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(old))
    return jax.make_array_from_process_local_data(sharding, value)


def _copy(x: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.array(x.addressable_data(0) if isinstance(x, jax.Array) else x)

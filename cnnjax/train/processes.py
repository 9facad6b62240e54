"""Several processes as one computation: who is there, when they stop together.

    join(coordinator="127.0.0.1:9876", num_processes=2, process_id=0)   # before the first array
    asked_to_stop(step)             # the same answer in every process
    is_first()                      # the one that writes
    end_with_launcher()             # never outlive `cnnjax launch`
    with none_lost(): ...           # what all compute together

Under Slurm (srun) and Open MPI (mpirun) `join()` finds everything by itself. When one process dies
the others cannot go on: `cnnjax launch` stops and restarts all of them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import jax
import numpy as np

from cnnjax.train import gloo, managers, meeting
from cnnjax.train.lifeline import end_with

HEARTBEAT_SECONDS = 10
MEETING_SECONDS = 60
# In the environment of a process of `cnnjax launch`: the launcher's id.
LAUNCHER = "CNNJAX_LAUNCHER"
# What a computation of several processes says of itself, not of the others.
OWN_FAULT = re.compile("RESOURCE_EXHAUSTED|INVALID_ARGUMENT")


class Lost(ConnectionError):
    """Another process has died, or cannot be reached any more."""


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    seconds: int = MEETING_SECONDS,
) -> None:
    """Meet the other processes; nothing to do where neither arguments nor a manager name any.

    Under Open MPI process 0 is taken to run on the host of mpirun.

    Raises ValueError for arguments that do not fit, ConnectionError where the coordinator (the
    process 0) or another process is not there within `seconds`, or the port is taken.
    """
    device = None
    if coordinator is num_processes is process_id is None:
        place = managers.place()
        if place is None:
            return
        coordinator, num_processes = place.coordinator, place.num_processes
        process_id = place.process_id
        # Of several GPUs of its host each process has one, as JAX has it under a manager.
        device = None if "JAX_LOCAL_DEVICE_IDS" in os.environ else place.local_id
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(
            "coordinator, num_processes, process_id: expected all three or none, got "
            f"{coordinator!r}, {num_processes}, {process_id}"
        )
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id: expected an integer from 0 to {num_processes - 1}, got {process_id}"
        )
    host, port = meeting.address(coordinator)
    if process_id == 0:
        own_address = meeting.gather(port, num_processes, seconds)
    else:
        own_address = meeting.announce(host, port, process_id, seconds)
    jax.distributed.initialize(
        coordinator,
        num_processes=num_processes,
        process_id=process_id,
        local_device_ids=device,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        initialization_timeout=seconds,
    )
    gloo.listen_at(own_address)


def is_first() -> bool:
    """True in the process that writes files and speaks."""
    return jax.process_index() == 0


def asked_to_stop(step: int) -> bool:
    """True in all processes after the same step, once one of them has received SIGTERM."""
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


def check_same_start(step: int) -> None:
    """Raise OSError in all processes where they would go on from different steps."""
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    steps = multihost_utils.process_allgather(np.int32(step)).tolist()
    if len(set(steps)) > 1:
        raise OSError(
            "out: expected a directory that all processes see, but their last checkpoints are of "
            f"steps {', '.join(map(str, steps))} (0: none)"
        )


@contextlib.contextmanager
def none_lost() -> Iterator[None]:
    """Raise Lost where what several processes compute together fails, as it does when one dies."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or OWN_FAULT.search(str(error)):
            raise
        reason = str(error).splitlines()[0]
        raise Lost(f"computing with the other processes failed ({reason})") from error


def end_with_launcher() -> None:
    """End this process with the `cnnjax launch` that started it, where one did."""
    if launcher := os.environ.pop(LAUNCHER, None):
        end_with(int(launcher))

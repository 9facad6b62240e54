"""Several processes as one computation: who is there, how they meet, when they stop together.

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
import socket
import time
from collections.abc import Iterator

import jax

from cnnjax.train.lifeline import end_with

HEARTBEAT_SECONDS = 10
MEETING_SECONDS = 60
# What a process of several finds in its environment: its manager's count of processes.
MANAGERS = {"Slurm": "SLURM_STEP_NUM_TASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
# Open MPI 5 tells its processes the job's name, "prterun-" + host and id of mpirun + "@1"; up to
# Open MPI 4, which JAX knows, there was an address.
JOB = re.compile(r"prte(?:run)?-(?P<host>.+)-(?P<number>\d+)@\d+")
PORTS = range(61440, 65536)
# In the environment of a process of `cnnjax launch`: the launcher's id.
LAUNCHER = "CNNJAX_LAUNCHER"
GO = b"go"
# Of a process that cannot go on since another one has died.
LOST = 69
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
    if coordinator is num_processes is process_id is None:
        if not any(int(os.environ.get(name, 1)) > 1 for name in MANAGERS.values()):
            return
        if not _under_open_mpi_5():
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
            return
        coordinator, num_processes, process_id = _by_open_mpi_5()
    if coordinator is None or num_processes is None or process_id is None:
        raise ValueError(
            "coordinator, num_processes, process_id: expected all three or none, got "
            f"{coordinator!r}, {num_processes}, {process_id}"
        )
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id: expected an integer from 0 to {num_processes - 1}, got {process_id}"
        )
    host, port = address(coordinator)
    # JAX would wait for a process that never comes, then abort this one with a stack trace.
    if process_id == 0:
        _gather(port, num_processes, seconds)
    else:
        _announce(host, port, process_id, seconds)
    jax.distributed.initialize(
        coordinator,
        num_processes=num_processes,
        process_id=process_id,
        local_device_ids=_local_devices(),
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        initialization_timeout=seconds,
    )


def _under_open_mpi_5() -> bool:
    return MANAGERS["Open MPI"] in os.environ and "OMPI_MCA_orte_hnp_uri" not in os.environ


def _by_open_mpi_5() -> tuple[str, int, int]:
    """Return coordinator, num_processes and process_id, which JAX finds by mpi4py or not at all."""
    name = os.environ.get("PMIX_NAMESPACE", "")
    job = JOB.fullmatch(name)
    if job is None:
        raise ValueError(
            "coordinator: expected HOST:PORT, num_processes and process_id, for Open MPI says "
            f"nothing of the host of mpirun in PMIX_NAMESPACE={name!r}"
        )
    port = os.environ.get("JAX_COORDINATOR_PORT", PORTS[int(job["number"]) % len(PORTS)])
    size, rank = (int(os.environ[f"OMPI_COMM_WORLD_{what}"]) for what in ("SIZE", "RANK"))
    return f"{job['host']}:{port}", size, rank


def _local_devices() -> list[int] | None:
    """Return the one GPU of a process of Open MPI 5, as JAX gives those of 4 and of Slurm one."""
    if not _under_open_mpi_5() or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    return [int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])]


def address(text: str) -> tuple[str, int]:
    """Return (host, port) of "host:port"; ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator: expected HOST:PORT, got {text!r}")
    return host, int(port)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_first() -> bool:
    """True in the process that writes files and speaks."""
    return jax.process_index() == 0


def asked_to_stop(step: int) -> bool:
    """True in all processes after the same step, once one of them has received SIGTERM."""
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


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


def _gather(port: int, count: int, seconds: float) -> None:
    """Wait, as process 0, until every other one has said its number; then let all go on."""
    end, there = time.monotonic() + seconds, dict[int, socket.socket]()
    with _listening(port) as server, contextlib.ExitStack() as stack:
        while missing := sorted({*range(1, count)} - there.keys()):
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                caller = stack.enter_context(server.accept()[0])
            except TimeoutError:
                names = ", ".join(map(str, missing))
                raise ConnectionError(
                    f"num_processes={count}: of {count} processes, number {names} did not come "
                    f"within {seconds} s"
                ) from None
            caller.settimeout(1.0)
            with contextlib.suppress(OSError, ValueError):  # a stranger's call
                there[int(caller.recv(16))] = caller
        for caller in there.values():
            with contextlib.suppress(OSError):
                caller.sendall(GO)
                caller.recv(1)  # the caller closes first, which leaves the port free


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConnectionError(f"coordinator: port {port} cannot be used: {reason}") from None


def _announce(host: str, port: int, process_id: int, seconds: float) -> None:
    """Say this process's number to process 0, and wait until all are there."""
    end = time.monotonic() + seconds
    with _connected(host, port, seconds) as coordinator:
        coordinator.settimeout(max(end - time.monotonic(), 0.01) + 1.0)
        try:
            coordinator.sendall(str(process_id).encode())
            answer = coordinator.recv(len(GO))
        except OSError:
            answer = b""
    if answer != GO:
        raise ConnectionError(f"coordinator: {host}:{port} ended before all processes were there")
    _connected(host, port, seconds).close()


def _connected(host: str, port: int, seconds: float) -> socket.socket:
    """Return a connection to what listens there, as soon as something does."""
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection((host, port), timeout=1)
        except OSError as error:
            if time.monotonic() > end:
                raise ConnectionError(
                    f"coordinator: nobody answers at {host}:{port} within {seconds} s ({error})"
                ) from None
            time.sleep(0.1)

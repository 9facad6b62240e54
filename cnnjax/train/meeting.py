"""Where several processes meet before JAX starts: at the address of process 0.

    own = gather(port, count, seconds)              # process 0: wait for all the others
    own = announce(host, port, process_id, seconds) # the others: say so, wait until all are there

JAX would wait for a process that never comes, then abort this one with a stack trace. Both return
the address at which this process can be reached, on other hosts too where there are any.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Sequence

NAMED = 8  # at most, of the processes that do not come


def address(text: str) -> tuple[str, int]:
    """Return (host, port) of "host:port"; ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator: expected HOST:PORT, got {text!r}")
    with contextlib.suppress(UnicodeError):
        host.encode("idna")
        return host, int(port)
    raise ValueError(f"coordinator: expected HOST:PORT, got {text!r}")


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gather(port: int, count: int, seconds: float) -> str:
    """Wait, as process 0, until every other one has said its number; then let all go on."""
    end, there = time.monotonic() + seconds, dict[int, socket.socket]()
    with _listening(port) as server, contextlib.ExitStack() as stack:
        while missing := sorted({*range(1, count)} - there.keys()):
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                caller = stack.enter_context(server.accept()[0])
            except TimeoutError:
                raise ConnectionError(
                    f"num_processes={count}: of {count} processes, number {_names(missing)} did "
                    f"not come within {seconds} s"
                ) from None
            caller.settimeout(1.0)
            with contextlib.suppress(OSError, ValueError):  # a stranger's call
                there[int(caller.recv(16))] = caller
        own = _from_afar([caller.getsockname()[0] for caller in there.values()])
        for caller in there.values():
            with contextlib.suppress(OSError):
                caller.sendall(f"{own}\n".encode())
                caller.recv(1)  # the caller closes first, which leaves the port free
    return own


def _names(missing: Sequence[int]) -> str:
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    return ", ".join(map(str, missing[:NAMED])) + more


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConnectionError(f"coordinator: port {port} cannot be used: {reason}") from None


def announce(host: str, port: int, process_id: int, seconds: float) -> str:
    """Say this process's number to process 0, and wait until all are there."""
    end = time.monotonic() + seconds
    with _connected(host, port, seconds) as coordinator:
        coordinator.settimeout(max(end - time.monotonic(), 0.01) + 1.0)
        own = coordinator.getsockname()[0]
        try:
            coordinator.sendall(str(process_id).encode())
            with coordinator.makefile() as answer:
                first = answer.readline().rstrip("\n")
        except OSError:
            first = ""
    if not first:
        raise ConnectionError(f"coordinator: {host}:{port} ended before all processes were there")
    _connected(host, port, seconds).close()
    # Over the loopback one reaches process 0 on its own host alone, which has its address.
    return _from_afar([own, first])


def _from_afar(addresses: Sequence[str]) -> str:
    """Return the first that other hosts can reach, 127.0.0.1 where none is."""
    own = (text for text in addresses if not ipaddress.ip_address(text).is_loopback)
    return next(own, "127.0.0.1")


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

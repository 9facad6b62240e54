"""usage: cnnjax launch --nproc=N [--max_restarts=R] -- train [FLAGS]

Run one training in N processes of this machine, each with its part of the GPUs where there are any.

  cnnjax launch --nproc=2 -- train --out=runs/wide --checkpoint_every=200

When one process dies all are stopped and started again, from the last checkpoint (give --out and
--checkpoint_every), at most R times. SIGTERM makes them save and end with status 75: the same
command goes on. Where the launcher itself is killed they end with it. On a CPU (JAX_PLATFORMS=cpu
where there are GPUs), JAX_NUM_CPU_DEVICES says how many devices each process has; under srun or
mpirun start `cnnjax train` itself, the processes find each other.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cnnjax.cli.flags import Flags
from cnnjax.cli.statuses import CRASH, FINAL, LOST, RESUMABLE
from cnnjax.train.meeting import free_port
from cnnjax.train.processes import LAUNCHER

GRACE_SECONDS, POLL_SECONDS = 30.0, 0.05
MOST_A_CORE = 16  # a process has its own JAX: hundreds of MB
# Lines of the runtime below, which say nothing to a user.
NOISE = re.compile(
    r"^\[Gloo\]|^[EWIF]\d{4} |^\*\*\*|^\s+@|^\s*$|^:[A-Z_]+:|^=== Source Location|^external/xla"
    r"|^RPC: /xla|^The tasks have crashed"
)
# JAX's words, in every other process, for one that hangs: its number is the next line; or it is
# process 0, whom they cannot ask.
SILENT = "(stopped sending heartbeats):"
LEADERLESS = "CoordinationService/Heartbeat"


@dataclass
class Member:
    """One of the processes, and the last lines it wrote on stderr."""

    index: int
    process: subprocess.Popen[str]
    listeners: list[threading.Thread] = field(default_factory=list)
    lines: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=20))
    silent: str | None = None  # the process that it ended for

    @property
    def status(self) -> int | None:
        """The exit status; negative for a signal, None while it runs."""
        return self.process.poll()

    def reason(self) -> str:
        """Return in one line how it ended, and whose fault it was."""
        if self.silent is not None:
            return f"process {self.silent} stopped answering"
        status = self.status
        how = f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        said = [line for line in self.lines if line.startswith("cnnjax ")]
        return f"process {self.index} {how}" + (f" ({said[-1]})" if said else "")


def main(words: list[str]) -> int:
    """Run the verb; return the status of the training, 70 where it died too often."""
    cut = words.index("--") if "--" in words else len(words)
    flags = Flags("launch", __doc__ or "")
    flags.integer("nproc", None, "processes to start")
    flags.integer("max_restarts", 3, "how often all are started again", least=0)
    rest = flags.parse(words[:cut])
    if rest is None:
        return 0
    if rest:
        raise ValueError(f"expected flags only before --, got {' '.join(rest)!r}")
    command = words[cut + 1 :]
    if flags.nproc is None:
        raise ValueError("nproc: expected --nproc=N, got none")
    most = MOST_A_CORE * (os.cpu_count() or 1)
    if flags.nproc > most:
        raise ValueError(
            f"nproc: expected at most {MOST_A_CORE} a core, {most} here, got {flags.nproc}"
        )
    if command[:1] != ["train"]:
        raise ValueError(
            f"expected -- train ... after the flags, got {' '.join(command) or 'none'}"
        )
    parts = gpu_parts(flags.nproc)
    return supervise(lambda: start(command, parts), flags.max_restarts)


def supervise(start_all: Callable[[], list[Member]], max_restarts: int) -> int:
    """Run the processes until they end well, or with a status that running again cannot change."""
    for attempt in range(max_restarts + 1):
        members = start_all()
        with stopping(members) as asked:
            failed = wait(members)
        if failed is None:
            return 0
        if asked.is_set() and failed.status not in FINAL:
            text = f"{failed.reason()} when asked to stop; the same command goes on"
            if failed.status == -signal.SIGTERM:
                text = "stopped before anything was saved; the same command begins again"
            print(f"cnnjax launch: {text}", file=sys.stderr)
            return RESUMABLE
        if failed.status in FINAL:
            if failed.lines and failed.lines[-1] not in members[0].lines:
                print(failed.lines[-1], file=sys.stderr)
            return int(failed.status or 0)
        more = f"; restart {attempt + 1} of {max_restarts}" if attempt < max_restarts else ""
        print(f"cnnjax launch: {failed.reason()}{more}", file=sys.stderr, flush=True)
    return CRASH


def gpu_parts(count: int) -> list[dict[str, str]]:
    """Return what goes into each process's environment, for JAX would give every GPU to each."""
    gpus = visible_gpus()
    if not gpus or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return [{}] * count
    if gpus % count:
        raise ValueError(
            f"nproc: expected a divisor of {gpus}, the GPUs of this machine, got {count}; with "
            "JAX_PLATFORMS=cpu the processes share its CPU"
        )
    size = gpus // count
    parts = (range(index * size, (index + 1) * size) for index in range(count))
    return [{"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, part))} for part in parts]


def visible_gpus() -> int:
    """Return how many NVIDIA GPUs JAX would find here, without starting it."""
    platforms = (os.environ.get("JAX_PLATFORMS") or "cuda").split(",")
    plugins = importlib.metadata.entry_points(group="jax_plugins").names
    if not {"cuda", "gpu"} & set(platforms) or not any("cuda" in name for name in plugins):
        return 0
    if (listed := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return sum(name.strip() not in ("", "-1") for name in listed.split(","))
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def start(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> list[Member]:
    """Start the processes of one try, one an environment; they meet at a free port."""
    place, count = f"127.0.0.1:{free_port()}", len(environments)
    members = []
    for index, environment in enumerate(environments):
        words = [f"--coordinator={place}", f"--num_processes={count}", f"--process_id={index}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "cnnjax", *command, *words],
            stdout=subprocess.PIPE if index == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **environment, LAUNCHER: str(os.getpid())},
        )
        members.append(Member(index, process))
        attend(members[-1])
    return members


def attend(member: Member) -> None:
    """Keep a process's last lines, and show those of the first, while it runs."""
    process = member.process
    for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        if source is not None:
            listener = threading.Thread(target=listen, args=(member, source, sink), daemon=True)
            member.listeners.append(listener)
            listener.start()


def listen(member: Member, source: IO[str], sink: IO[str]) -> None:
    """Read one stream of a process to its end."""
    with source:
        for line in source:
            if SILENT in line:
                member.silent = next(source, "").strip()
            elif LEADERLESS in line:
                member.silent = "0"
            if NOISE.search(line):
                continue
            member.lines.append(line.rstrip("\n"))
            if member.index == 0:
                # Where nobody reads on, the process must not wait for a reader.
                with contextlib.suppress(BrokenPipeError):
                    print(member.lines[-1], file=sink, flush=True)


def wait(members: Sequence[Member]) -> Member | None:
    """Wait for all; return the first that failed, None where none did.

    The others get a while only where they end by themselves too.
    """
    failed: Member | None = None
    end = float("inf")
    while any(member.status is None for member in members) and time.monotonic() < end:
        if failed is None and (failed := to_blame(members)):
            end = time.monotonic() + (GRACE_SECONDS if failed.status in FINAL else 0.0)
        time.sleep(POLL_SECONDS)
    return failed or to_blame(members)


def to_blame(members: Sequence[Member]) -> Member | None:
    """Return one that failed; one that ended because it lost another only where no other did."""
    failed = [member for member in members if member.status]
    return min(failed, key=lambda member: member.status == LOST, default=None)


@contextlib.contextmanager
def stopping(members: Sequence[Member]) -> Iterator[threading.Event]:
    """Hand SIGTERM on to the processes, and say that it came; leave none of them behind."""
    asked = threading.Event()

    def hand_on(signum: int, frame: Any) -> None:
        asked.set()
        for member in members:
            if member.status is None:
                member.process.send_signal(signum)

    inside = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, hand_on) if inside else None
    try:
        yield asked
    finally:
        for member in members:
            if member.status is None:
                member.process.kill()
            member.process.wait()
            for listener in member.listeners:
                listener.join(timeout=1.0)
        if inside:
            signal.signal(signal.SIGTERM, before)

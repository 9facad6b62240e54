"""Where a number was made: versions, hardware, commit, command; written beside every result.

env = describe(threads=1)
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = ("cnnjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


def describe(*, threads: int) -> dict[str, Any]:
    """Return versions, hardware and commit; call it in the process that trains."""
    import jax

    devices = jax.local_devices()
    return {
        **software(),
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "devices": len(devices),
        "threads": threads,
        "cpu": processor(),
        "cores": os.cpu_count(),
    }


@cache
def software() -> dict[str, Any]:
    """Return the versions of Python and the packages, and the commit of the source tree."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        **versions,
        "commit": commit(),
    }


@cache
def code() -> str:
    """Return a fingerprint of this package's source and of the versions of PACKAGES.

    Where it is the same, what is worked out without drawing or timing anything is the same.
    """
    source = Path(__file__).resolve().parent
    digest = hashlib.sha256(repr([_version(name) for name in PACKAGES]).encode())
    for path in sorted(source.rglob("*.py")):
        digest.update(path.relative_to(source).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def commit() -> str:
    """Return the commit of the source tree, with + where it has uncommitted changes."""
    source = Path(__file__).resolve().parent
    try:
        text = _git(source, "rev-parse", "--short=12", "HEAD")
        return text + ("+" if _git(source, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@cache
def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


@cache
def instructions() -> str:
    """Return a fingerprint of what code this processor runs: processors of one name may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    named = ("cpu family", "model", "flags", "Features", "CPU implementer", "CPU part")
    told = sorted({line for line in lines if line.partition(":")[0].strip() in named})
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def threads() -> int:
    """Return the threads that XLA uses on this CPU."""
    if os.environ.get("NPROC", "").isdigit():
        return int(os.environ["NPROC"])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command() -> str:
    """Return the command line of this process, as one would type it into a shell."""
    program = "cnnjax" if Path(sys.argv[0]).name in ("cnnjax", "__main__.py") else sys.argv[0]
    return shlex.join([program, *sys.argv[1:]])


def _git(directory: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"

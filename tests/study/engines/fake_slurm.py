"""Slurm as far as submitit asks: sbatch, srun, sacct and scancel as scripts that run jobs here.

install(directory)                 # puts the commands there; $FAKE_SLURM says where jobs are kept
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path


def install(directory: Path) -> None:
    """Write the four commands."""
    for name in ("sbatch", "srun", "sacct", "scancel"):
        command = directory / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        command.chmod(0o755)


def sbatch(jobs: Path, script: str) -> None:
    """Start the script as a job; refuse the partition `closed`."""
    if "--partition=closed" in Path(script).read_text():
        sys.exit("sbatch: error: invalid partition specified: closed")
    number = 1 + len(list(jobs.glob("*.sh")))
    (jobs / f"{number}.sh").write_text(Path(script).read_text())
    where = {"SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}
    where |= {"SLURM_JOB_ID": str(number), "SLURM_JOB_NUM_NODES": "1"}
    with open(jobs / f"{number}.log", "w") as log:
        job = subprocess.Popen(
            ["bash", script],
            env={**os.environ, **where},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (jobs / f"{number}.pid").write_text(str(job.pid))
    print(f"Submitted batch job {number}")


def srun(*words: str) -> None:
    """Run the command behind the options."""
    start = next(i for i, word in enumerate(words) if word.endswith(("python", "python3")))
    os.execv(words[start], words[start:])


def sacct(jobs: Path, *words: str) -> None:
    """Print the state of the jobs asked for."""
    print("JobID|State|NodeList")
    for flag, name in itertools.pairwise(words):
        if flag == "-j" and (jobs / f"{name}.pid").exists():
            print(f"{name}|{'RUNNING' if is_running(jobs, name) else 'NODE_FAIL'}|here")


def scancel(jobs: Path, *words: str) -> None:
    """Kill the jobs."""
    for name in words:
        if is_running(jobs, name):
            os.killpg(int((jobs / f"{name}.pid").read_text()), signal.SIGKILL)


def is_running(jobs: Path, name: str) -> bool:
    """Return whether a job's process is there."""
    pid = (jobs / f"{name}.pid").read_text()
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    place = Path(os.environ["FAKE_SLURM"])
    if name == "srun":
        srun(*rest)
    else:
        {"sbatch": sbatch, "sacct": sacct, "scancel": scancel}[name](place, *rest)

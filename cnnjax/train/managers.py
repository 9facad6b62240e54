"""What started this process as one of several: Slurm's srun, or mpirun of Open MPI 4 or 5.

    place()     # which process of how many this is, and where process 0 is; None for a lone one

JAX looks for them too, but knows nothing of Open MPI 5, and waits for a process that never comes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

# Ports that no service has a right to, of which a job's number chooses one.
PORTS = range(61440, 65536)
# Open MPI 4 tells its processes the job's number, times 4,096, and where mpirun can be reached.
CONTACT = "OMPI_MCA_orte_hnp_uri"
ADDRESS = re.compile(r"(?P<number>\d+)\.\d+;tcp://(?P<host>[^,:]+)")
# Open MPI 5 tells them the job's name: "prterun-" + host and number of mpirun + "@1".
JOB = re.compile(r"prte(?:run)?-(?P<host>.+)-(?P<number>\d+)@\d+")
# Of Slurm's list of hosts the first: "node7,node9", "node[07-12,15],gpu3", "rack[1-4]-a".
FIRST_HOST = re.compile(r"(?P<head>[^,[]+)(?:\[(?P<number>\d+)[^]]*\](?P<tail>[^,]*))?")


@dataclass(frozen=True)
class Place:
    """Process `process_id` of `num_processes`, the `local_id`-th on its host."""

    coordinator: str
    num_processes: int
    process_id: int
    local_id: int


def place() -> Place | None:
    """Return the place that a manager has given this process, None where it is alone.

    An allocation of several tasks is not several processes: only srun and mpirun start them.
    Raises ValueError where the manager does not say where process 0 is.
    """
    # mpirun in a task of Slurm hands its variables on.
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return _by_open_mpi()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return _by_slurm()
    return None


def _by_open_mpi() -> Place:
    """Process 0 is taken to run on the host of mpirun, as JAX has it."""
    said = os.environ.get(CONTACT) or os.environ.get("PMIX_NAMESPACE", "")
    if found := ADDRESS.match(said):
        job = int(found["number"]) // 4096
    elif found := JOB.fullmatch(said):
        job = int(found["number"])
    else:
        raise ValueError(
            "coordinator: expected HOST:PORT, num_processes and process_id, for Open MPI says "
            f"nothing of the host of mpirun in {said!r}"
        )
    names = ("SIZE", "RANK", "LOCAL_RANK")
    numbers = (int(os.environ[f"OMPI_COMM_WORLD_{name}"]) for name in names)
    return Place(_at(found["host"], job), *numbers)


def _by_slurm() -> Place:
    hosts = os.environ.get("SLURM_STEP_NODELIST", "")
    first = FIRST_HOST.match(hosts)
    if first is None:
        raise ValueError(
            "coordinator: expected HOST:PORT, num_processes and process_id, for Slurm names no "
            f"host in SLURM_STEP_NODELIST={hosts!r}"
        )
    names = ("SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")
    job, *numbers = (int(os.environ[name]) for name in names)
    return Place(_at("".join(part or "" for part in first.groups()), job), *numbers)


def _at(host: str, job: int) -> str:
    """Return the address of process 0, at the port of JAX's own choice."""
    return f"{host}:{os.environ.get('JAX_COORDINATOR_PORT', PORTS[job % len(PORTS)])}"

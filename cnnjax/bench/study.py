"""The default study beside the same grid as a plain script in Flax and in PyTorch (scripts/peers/).

    cnnjax bench study --only tiny                   two minutes: does it all run?
    cnnjax bench study --only "whole grid, all shifts, cold, a process a core"

Everything runs in processes of its own, from the command to the table, once. Same networks, epochs,
batches and test shifts; the peers move each image by each shift and run it. "cold" starts with no
compiled programs on disk, "warm" with those of a run before; the Flax script has JAX's own cache.
The peers are as written, one process that has every core, or, better off, a process a core.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

from cnnjax.bench import torch
from cnnjax.bench.measure import Candidate, Cell

GROUP = ("grid", "evaluation", "cache", "peers")
PEERS = Path(__file__).resolve().parents[2] / "scripts" / "peers"
NO_PEERS = "its script is in the source tree (scripts/peers), which this is not"


@dataclass(frozen=True)
class Grid:
    """How much of the default study: seeds from 0 on, epochs, pools, strides."""

    seeds: int = 3
    epochs: int = 6
    pools: str = "max,min,sum,mean,decimate,max_blur,aps"
    strides: str = "1,2,3"


GRIDS: Mapping[str, Grid] = {
    "tiny": Grid(seeds=1, epochs=1, pools="max,aps", strides="2,3"),
    "two pools": Grid(seeds=1, pools="max,aps"),
    "one seed": Grid(seeds=1),
    "whole grid": Grid(),
}
EVALUATIONS = {"49 places": ("none", "places"), "all shifts": ("cheap", "all")}
CORES = os.cpu_count() or 1
PROCESSES = {"one process": 1, "a process a core": CORES}
# The packages that scripts need, and whether they keep compiled programs.
KEEPS_PROGRAMS = {"flax": True, "torch": False}


def cells() -> Iterator[Cell]:
    """Yield a cell for each grid, evaluation, number of the peers' processes, cold and warm."""
    for grid, peers, shifts, warmth in product(GRIDS, PROCESSES, EVALUATIONS, ("cold", "warm")):
        labels = {"grid": grid, "evaluation": shifts, "cache": warmth, "peers": peers}
        make = partial(candidates, grid, shifts, peers, warm=warmth == "warm")
        yield Cell(labels, make, once=True)


def candidates(grid: str, shifts: str, peers: str, *, warm: bool) -> dict[str, Candidate | str]:
    """Return the study and its peers; warm ones have run once before."""
    battery, all_or_places = EVALUATIONS[shifts]
    processes = PROCESSES[peers]
    found: dict[str, Candidate | str] = {
        "cnnjax": _candidate(partial(study, GRIDS[grid], battery), warm)
    }
    for name, keeps in KEEPS_PROGRAMS.items():
        script = PEERS / f"{name}_study.py"
        if not script.is_file():
            found[name] = NO_PEERS
        elif importlib.util.find_spec(name) is None:
            found[name] = torch.ABSENT
        else:
            run = partial(peer, script, GRIDS[grid], all_or_places, processes)
            found[name] = _candidate(run, warm and keeps)
    return found


def _candidate(run: Callable[[str], object], warm: bool) -> Candidate:
    if not warm:
        return Candidate(lambda: run(fresh()))
    filled = _filled(run.func, run.args)  # type: ignore[attr-defined]
    return Candidate(lambda: run(filled))


@cache
def _filled(function: Callable[..., object], arguments: tuple[object, ...]) -> str:
    """Return a compile cache that this work has filled."""
    folder = fresh()
    function(*arguments, folder)
    return folder


def study(grid: Grid, battery: str, cache: str) -> str:
    """Run the default study as a user does; return what it printed."""
    with tempfile.TemporaryDirectory() as out:
        return run(
            *("-m", "cnnjax", "study", "pooling_and_stride", f"--out={out}/study"),
            *(f"--pool={grid.pools}", f"--stride={grid.strides}", f"--epochs={grid.epochs}"),
            *(f"--seed={','.join(map(str, range(grid.seeds)))}", f"--battery={battery}"),
            CNNJAX_CACHE=cache,
        )


def peer(script: Path, grid: Grid, shifts: str, processes: int, cache: str) -> str:
    """Run a peer's script; return its table."""
    return run(
        *(str(script), f"--seeds={grid.seeds}", f"--epochs={grid.epochs}", f"--shifts={shifts}"),
        *(f"--pools={grid.pools}", f"--strides={grid.strides}", f"--processes={processes}"),
        NPROC=str(max(1, CORES // processes)),
        JAX_COMPILATION_CACHE_DIR=cache,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )


def run(*words: str, **variables: str) -> str:
    """Run Python with these words; ChildProcessError with its last line where it fails."""
    ours = ("NPROC", "JAX_NUM_CPU_DEVICES", "CNNJAX_CACHE")
    env = {k: v for k, v in os.environ.items() if k not in ours}
    root = os.pathsep.join(filter(None, (str(PEERS.parents[1]), env.get("PYTHONPATH"))))
    env |= {"PYTHONPATH": root, **variables}
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ChildProcessError(f"{' '.join(words[:3])}: exit status {done.returncode}: {last}")
    return done.stdout


def fresh() -> str:
    """Return an empty directory that goes with the process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return folder.name

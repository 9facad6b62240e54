"""Several processes: they meet or say why not, agree with one device, and survive each other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from process_table import alive, children, gone

from cnnjax.cli import launch, main
from cnnjax.config import Config
from cnnjax.study.keeping import or_failure
from cnnjax.study.store import TrialFiles
from cnnjax.train import gloo, managers, meeting, processes
from cnnjax.train.progress import Diverged, Progress
from cnnjax.train.saver import Saver, Stopped
from cnnjax.train.training import resumed

WORDS = [
    *("--dataset=digits_canvas:side=18:scale=1:train=44:test=20", "--epochs=4", "--batch_size=8"),
    *("--widths=2", "--dense=4", "--norm=batch", "--dropout=0.3", "--pool=stochastic"),
    *("--head=gap", "--eval_places=2", "--battery=none", "--optimizer=sgd", "--lr=0.05"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", 2, None), "expected all three or none, got 'localhost:1', 2, None"),
        (("localhost:1", 2, 2), "process_id: expected an integer from 0 to 1, got 2"),
        (("localhost", 2, 0), "coordinator: expected HOST:PORT, got 'localhost'"),
        (("localhost:99999", 2, 0), "coordinator: expected HOST:PORT"),
        (("a..b:80", 2, 0), "coordinator: expected HOST:PORT"),
    ],
)
def test_arguments_that_do_not_fit(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processes.join(*arguments)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=f"port {port} cannot be used: Address already"):
            processes.join(f"127.0.0.1:{port}", 2, 0)


def test_a_coordinator_that_is_not_there_is_named() -> None:
    port = meeting.free_port()
    with pytest.raises(ConnectionError, match=f"nobody answers at 127.0.0.1:{port} within 0 s"):
        processes.join(f"127.0.0.1:{port}", 2, 1, seconds=0)


def test_a_process_that_does_not_come_is_named() -> None:
    with pytest.raises(ConnectionError, match=r"of 3 processes, number 1, 2 did not come within 0"):
        processes.join(f"127.0.0.1:{meeting.free_port()}", 3, 0, seconds=0)
    with pytest.raises(ConnectionError, match=r"1, 2, 3, 4, 5, 6, 7, 8 and 11 more did not come"):
        processes.join(f"127.0.0.1:{meeting.free_port()}", 20, 0, seconds=0)


def test_processes_meet_whoever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """All go on once all are there, strangers aside; then JAX has the port."""
    port, met, addresses = meeting.free_port(), list[int](), list[str]()
    service = socket.socket()

    def initialize(*_: Any, process_id: int, **__: Any) -> None:
        if process_id == 0:
            service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            service.bind(("127.0.0.1", port))
            service.listen()
        met.append(process_id)

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    monkeypatch.setattr(gloo, "listen_at", addresses.append)
    place = f"127.0.0.1:{port}"
    threads = [
        threading.Thread(target=processes.join, args=(place, 3, i), kwargs={"seconds": 5})
        for i in (2, 0, 1)
    ]
    for thread in threads[:2]:
        thread.start()
    with meeting._connected("127.0.0.1", port, 5) as stranger:
        stranger.sendall(b"GET / HTTP/1.1")
    time.sleep(0.2)
    assert not met
    threads[2].start()
    for thread in threads:
        thread.join()
    service.close()
    assert sorted(met) == [0, 1, 2]
    assert addresses == ["127.0.0.1"] * 3


@pytest.mark.parametrize(
    ("known", "own"),
    [
        (["10.0.0.2", "10.0.0.1"], "10.0.0.2"),
        (["127.0.1.1", "10.0.0.1"], "10.0.0.1"),  # on the host of process 0, which others reach
        (["127.0.1.1", "127.0.0.1"], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
def test_the_address_that_other_hosts_reach(known: list[str], own: str) -> None:
    assert meeting._from_afar(known) == own


def test_a_coordinator_that_gives_up_is_named() -> None:
    port = meeting.free_port()

    def give_up() -> None:
        with pytest.raises(ConnectionError, match="number 2 did not come"):
            meeting.gather(port, 3, 0.5)

    first = threading.Thread(target=give_up)
    first.start()
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port} ended before all processes"):
        processes.join(f"127.0.0.1:{port}", 3, 1, seconds=5)
    first.join()


def test_one_process_has_nobody_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation of several tasks is no several processes: only srun and mpirun start them."""
    monkeypatch.setenv("SLURM_NTASKS", "4")
    processes.join()
    assert processes.is_first()


OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "SLURM_STEP_NUM_TASKS": "2",  # of the task that runs mpirun
}
OPEN_MPI_4 = {**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": f"{4096 * 5001}.0;tcp://10.0.0.1,10.1.0.1:39951"}
OPEN_MPI_5 = {**OPEN_MPI, "PMIX_NAMESPACE": "prterun-gpu-node-07-12345@1"}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[07-12,15],gpu3",
}


@pytest.mark.parametrize(
    ("manager", "coordinator"),
    [
        (OPEN_MPI_4, f"10.0.0.1:{61440 + 5001 - 4096}"),
        (OPEN_MPI_5, f"gpu-node-07:{61440 + 12345 % 4096}"),
        (SLURM, "node07:61441"),
        ({**SLURM, "SLURM_STEP_NODELIST": "node7,node9"}, "node7:61441"),
        ({**SLURM, "SLURM_STEP_NODELIST": "rack[1,3]-a,node9"}, "rack1-a:61441"),
        ({**SLURM, "SLURM_STEP_NODELIST": "n-1"}, "n-1:61441"),
        ({**SLURM, "JAX_COORDINATOR_PORT": "1234"}, "node07:1234"),
    ],
)
def test_what_managers_say(
    monkeypatch: pytest.MonkeyPatch, manager: dict[str, str], coordinator: str
) -> None:
    for name, value in manager.items():
        monkeypatch.setenv(name, value)
    assert managers.place() == managers.Place(coordinator, 4, 3, 1)


@pytest.mark.parametrize("ids", [None, "0,1"])
def test_a_manager_s_processes_meet_and_have_a_gpu_each(
    monkeypatch: pytest.MonkeyPatch, ids: str | None
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(meeting, "announce", lambda *how: told.append(how) or "10.0.0.2")
    monkeypatch.setattr(gloo, "listen_at", told.append)
    monkeypatch.setattr("jax.distributed.initialize", lambda *how, **more: told.append((how, more)))
    for name, value in {**SLURM, **({"JAX_LOCAL_DEVICE_IDS": ids} if ids else {})}.items():
        monkeypatch.setenv(name, value)
    processes.join()
    announced, ((coordinator,), how), address = told
    assert announced == ("node07", 61441, 3, processes.MEETING_SECONDS)
    assert (coordinator, how["num_processes"], how["process_id"]) == ("node07:61441", 4, 3)
    assert how["local_device_ids"] == (None if ids else 1)
    assert address == "10.0.0.2"


@pytest.mark.parametrize(
    ("manager", "name"),
    [
        ({**OPEN_MPI, "PMIX_NAMESPACE": "somethingelse.0"}, "somethingelse.0"),
        ({**SLURM, "SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST=''"),
    ],
)
def test_a_manager_that_does_not_name_its_host(
    monkeypatch: pytest.MonkeyPatch, manager: dict[str, str], name: str
) -> None:
    for variable, value in manager.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"coordinator: expected HOST:PORT.*{name}"):
        processes.join()


@pytest.mark.parametrize(
    ("count", "error", "outcome"),
    [
        (2, "UNKNOWN: Gloo all-reduce failed: Connection closed by peer", "computing with"),
        (2, "RESOURCE_EXHAUSTED: Out of memory", "JaxRuntimeError: RESOURCE_EXHAUSTED"),
        (1, "UNKNOWN: anything", "JaxRuntimeError: UNKNOWN"),
    ],
)
def test_the_death_of_another_process_is_not_the_trials_failure(
    monkeypatch: pytest.MonkeyPatch, count: int, error: str, outcome: str
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: count)

    def run() -> dict[str, Any]:
        raise jax.errors.JaxRuntimeError(error)

    try:
        reason = or_failure(Config(), run)["reason"]
    except processes.Lost as lost:
        reason = str(lost)
    assert reason.startswith(outcome)


@pytest.mark.parametrize("others", [0, 81])
def test_all_start_from_the_same_step_or_none_does(
    monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    gather = "jax.experimental.multihost_utils.process_allgather"
    monkeypatch.setattr(gather, lambda step: np.array([step, others]))
    start: Any = None
    if others:
        with pytest.raises(OSError, match=r"out: .* of steps 0, 81"):
            resumed(start, None, print)
    else:
        assert resumed(start, None, print)[1].step == 0


def test_sigterm_ends_several_processes_that_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "asked_to_stop", lambda step: step == 7)
    between: Any = Saver().between
    between(None, Progress(step=6))
    with pytest.raises(Stopped, match="after step 7, nothing is kept without --out"):
        between(None, Progress(step=7))


@pytest.mark.parametrize(("words", "left"), [(["--lr=-1"], [2]), (["--help"], [])])
def test_a_process_that_cannot_go_on_waits_for_no_other(
    monkeypatch: pytest.MonkeyPatch, words: list[str], left: list[int]
) -> None:
    """Python's own end would wait for the others, and they for this one."""
    seen: list[int] = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", seen.append)
    main(["train", *words])
    assert seen == left


def test_a_training_that_diverges_does_so_in_every_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    def diverge(*_: Any, **__: Any) -> None:
        raise Diverged("the loss is nan at step 2", 2)

    monkeypatch.setattr(processes, "is_first", lambda: False)
    monkeypatch.setattr("cnnjax.cli.train.measure", diverge)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    left = list[int]()
    monkeypatch.setattr(os, "_exit", left.append)
    assert main(["train", f"--out={tmp_path / 'out'}"]) == 1
    assert "diverged: the loss is nan at step 2" in capsys.readouterr().err
    assert not left  # the others end so too, and it waits for them


def test_who_has_lost_another_is_not_the_one_that_died() -> None:
    both = members("import sys; sys.exit(69)", "import os; os.kill(os.getpid(), 9)")
    for member in both:
        member.process.wait()
    failed = launch.wait(both)
    assert failed is both[1]


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"CUDA_VISIBLE_DEVICES": "3,2,1,0"}, ["0,1", "2,3"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "JAX_PLATFORMS": "cuda,cpu"}, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [None, None]),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, [None, None]),
        ({"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cpu"}, [None, None]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "JAX_LOCAL_DEVICE_IDS": "0"}, [None, None]),
    ],
)
def test_each_process_has_its_part_of_the_gpus(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], parts: list[str | None]
) -> None:
    plugins = SimpleNamespace(names={"xla_cuda13"})
    monkeypatch.setattr(launch.importlib.metadata, "entry_points", lambda group: plugins)
    monkeypatch.setenv("JAX_PLATFORMS", "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert [part.get("JAX_LOCAL_DEVICE_IDS") for part in launch.gpu_parts(2)] == parts


def test_more_processes_than_gpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "visible_gpus", lambda: 1)
    assert main(["launch", "--nproc=2", "--", "train"]) == 2
    said = "nproc: expected a divisor of 1, the GPUs of this machine, got 2"
    assert said in capsys.readouterr().err


def members(*programs: str) -> list[launch.Member]:
    started = []
    for index, code in enumerate(programs):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(launch.Member(index, process))
        launch.attend(started[-1])
    return started


SLEEP = "import time; time.sleep(60)"


def test_all_stop_and_start_again_when_one_dies(capsys: Any) -> None:
    said = r"[Gloo] x\n=== Source Location Trace: ===\nexternal/xla+/a.h:89\ncnnjax train: boom"
    noisy = f"import sys; print('{said}', file=sys.stderr); sys.exit(134)"
    tries = [
        (SLEEP, "import os; os.kill(os.getpid(), 9)"),
        (noisy, SLEEP),
        ("print('fine')", "print('unheard')"),
    ]
    started: list[list[launch.Member]] = []

    def start() -> list[launch.Member]:
        started.append(members(*tries[len(started)]))
        return started[-1]

    assert launch.supervise(start, 3) == 0
    out, errors = capsys.readouterr()
    assert out == "fine\n"
    assert errors.splitlines() == [
        "cnnjax launch: process 1 was killed by SIGKILL; restart 1 of 3",
        "cnnjax train: boom",
        "cnnjax launch: process 0 ended with status 134 (cnnjax train: boom); restart 2 of 3",
    ]
    assert [member.status for member in started[0]] == [-signal.SIGKILL, -signal.SIGKILL]


PARENT = """
import subprocess, sys, time
code = "import os, time; from cnnjax.train.lifeline import end_with; end_with(os.getppid());"
child = subprocess.Popen([sys.executable, "-c", code + "print(1, flush=True); time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, ready = int(parent.stdout.readline()), parent.stdout.readline()
    assert ready == "1\n" and alive(child)
    parent.kill()
    parent.wait()
    assert gone([child], seconds=5)
    parent.stdout.close()


SILENT = """
E1128 00:25:25.23 312 coordination_service.cc:1549] UNAVAILABLE: The following tasks are \
unhealthy (stopped sending heartbeats):
1
The tasks have crashed. Check the task logs for an earlier error. [type.googleapis.com/tensorflow]

RPC: /xla.coordination.CoordinationService/PollForError
*** Check failure stack trace: ***
"""
LEADERLESS = """
F1128 00:25:47.238442   31388 client.h:80] Terminating process. absl::Status: DEADLINE_EXCEEDED

RPC: /xla.coordination.CoordinationService/Heartbeat
"""


@pytest.mark.parametrize(("said", "silent"), [(SILENT, 1), (LEADERLESS, 0)])
def test_a_process_that_hangs_is_named(capsys: Any, said: str, silent: int) -> None:
    code = f"import os, sys; print({said!r}, file=sys.stderr, flush=True); os.abort()"
    assert launch.supervise(lambda: members(code, SLEEP), 0) == 70
    assert capsys.readouterr().err == f"cnnjax launch: process {silent} stopped answering\n"


@pytest.mark.slow
@pytest.mark.long
def test_kill_9_of_the_launcher_ends_its_processes(tmp_path: Path) -> None:
    """And the same command goes on from the last checkpoint, to the bits of an undisturbed run."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    words, env = [*WORDS, "--epochs=20", "--checkpoint_every=3"], environment(tmp_path, 1)
    run([*words, f"--out={calm}"], 2, env)
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnjax", "launch", "--nproc=2", "--", "train", *words,
         f"--out={killed}"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (killed / "checkpoints" / "6").exists():
        time.sleep(0.02)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    assert gone(workers, seconds=10)
    assert not (killed / "result.json").exists()
    run([*words, f"--out={killed}"], 2, env)
    assert (variables(killed) == variables(calm)).all()


def test_it_gives_up(capsys: Any) -> None:
    assert launch.supervise(lambda: members("import sys; sys.exit(134)", SLEEP), 1) == 70
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "cnnjax launch: process 0 ended with status 134; restart 1 of 1",
        "cnnjax launch: process 0 ended with status 134",
    ]


def test_sigterm_in_the_first_second_is_no_crash(capsys: Any) -> None:
    """Processes that cannot save yet are ended by it, and not started again."""
    tries = iter([members(SLEEP, SLEEP)])
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert launch.supervise(lambda: next(tries), 5) == 75
    assert capsys.readouterr().err.startswith("cnnjax launch: stopped before anything was saved")


def test_a_death_while_stopping_is_not_tried_again(capsys: Any) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(69));"
    code += "print('up', flush=True); time.sleep(60)"
    tries = iter([members(code)])

    def start() -> list[launch.Member]:
        started = next(tries)
        while not started[0].lines:
            time.sleep(0.01)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return started

    assert launch.supervise(start, 5) == 75
    assert capsys.readouterr().err == (
        "cnnjax launch: process 0 ended with status 69 when asked to stop; "
        "the same command goes on\n"
    )


def test_a_mistake_is_not_tried_again(capsys: Any) -> None:
    code = "import sys; print('cnnjax train: lr: no', file=sys.stderr); sys.exit(2)"
    tries = iter([members("pass", code)])
    assert launch.supervise(lambda: next(tries), 5) == 2
    assert capsys.readouterr().err == "cnnjax train: lr: no\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--", "train"], "nproc: expected --nproc=N"),
        (["--nproc=2"], "expected -- train"),
        (["--nproc=2", "--", "study"], "expected -- train ... after the flags, got study"),
        (["--nproc=0", "--", "train"], "nproc"),
        (["--nproc=99999", "--", "train"], "nproc: expected at most 16 a core"),
        (["--nproc=2", "more", "--", "train"], "expected flags only before --, got 'more'"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: Any) -> None:
    assert main(["launch", *words]) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def environment(cache: Path, devices: int) -> dict[str, str]:
    return {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), "CNNJAX_CACHE": str(cache)}


def variables(out: Path) -> np.ndarray:
    arrays = TrialFiles(out).variables()
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)])


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "out"
    run([*WORDS, f"--out={out}"], 0, environment(out.parent, 1))
    return out


def run(words: list[str], nproc: int, env: dict[str, str]) -> None:
    start = ["launch", f"--nproc={nproc}", "--", "train"] if nproc else ["train"]
    done = subprocess.run(
        [sys.executable, "-m", "cnnjax", *start, *words], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Gloo" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["sharded", "pmap"])
def test_two_processes_agree_with_one_device(
    one_device: Path, tmp_path: Path, parallel: str
) -> None:
    """2 processes x 2 devices, SGD in float32: 24 steps to 1e-5."""
    out = tmp_path / "out"
    run([*WORDS, f"--out={out}", f"--parallel={parallel}"], 2, environment(tmp_path, 2))
    assert np.max(np.abs(variables(out) - variables(one_device))) < 1e-5
    accuracy = [json.loads((o / "result.json").read_text())["metrics"] for o in (out, one_device)]
    assert accuracy[0]["accuracy"] == accuracy[1]["accuracy"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_kill_9_of_any_process_ends_in_the_same_bits(tmp_path: Path, victim: int) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    words, env = [*WORDS, "--epochs=20", "--checkpoint_every=3"], environment(tmp_path, 2)
    run([*words, f"--out={calm}"], 2, env)
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnjax", "launch", "--nproc=2", "--", "train", *words,
         f"--out={killed}"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (killed / "checkpoints" / "6").exists():
        time.sleep(0.02)
    os.kill(children(process.pid)[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"process {victim} was killed by SIGKILL; restart 1 of 3" in errors
    assert (variables(killed) == variables(calm)).all()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("told", ["launcher", "process"])
def test_sigterm_to_all_or_one_and_two_processes_go_on_as_one(tmp_path: Path, told: str) -> None:
    """Stopped in 2 processes, restored in 1: bit-exact to restore, then within rounding."""
    calm, out = tmp_path / "calm", tmp_path / "out"
    words, env = [*WORDS, "--epochs=20", "--checkpoint_every=3"], environment(tmp_path, 2)
    run([*words, f"--out={calm}"], 0, env)
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnjax", "launch", "--nproc=2", "--", "train", *words,
         f"--out={out}"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (out / "checkpoints" / "6").exists():
        time.sleep(0.02)
    os.kill(process.pid if told == "launcher" else children(process.pid)[1], signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "the same command goes on from there" in errors.splitlines()[-1]
    run([*words, f"--out={out}"], 0, env)
    assert np.max(np.abs(variables(out) - variables(calm))) < 1e-4

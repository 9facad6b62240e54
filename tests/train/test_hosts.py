"""A training on two hosts, which this machine plays: each a network, a name and an /etc/hosts.

Skipped where this process may not make them (root on Linux may, where `ip` is installed). The names
are those of Debian, where a host's own name stands for 127.0.1.1, which no other host reaches.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TRAIN = [
    *("train", "--dropout=0.3", "--norm=batch", "--widths=2", "--dense=4", "--head=gap"),
    *("--dataset=digits_canvas:side=18:scale=1:train=44:test=20", "--batch_size=6"),
    *("--eval_places=2", "--battery=none", "--checkpoint_every=5"),
]
FIRST, SECOND = "10.77.0.1", "10.77.0.2"
ENTER = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
LISTEN = "import socket; s = socket.create_server(('', 7653)); print(flush=True); s.accept()"
CALL = f"import socket; socket.create_connection(('{FIRST}', 7653), timeout=5)"
ENVIRONMENT = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Host:
    """A host of this machine's playing; `names` is its /etc/hosts."""

    name: str
    names: Path

    def inside(self, words: list[str]) -> list[str]:
        """Return the command that runs another one there."""
        enter = ["ip", "netns", "exec", self.name, "unshare", "--uts", "--mount"]
        return [*enter, "sh", "-c", ENTER, "sh", str(self.names), self.name, *words]

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        """Start `cnnjax` there."""
        command = self.inside([sys.executable, "-m", "cnnjax", *words])
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )

    def cut_off(self) -> None:
        """Take the cable out."""
        ip(f"-n {self.name} link set {self.name} down")


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Yield two hosts with a cable between them, and no other network."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("no ip or unshare here")
    first, second = (Host(f"cj{os.getpid()}{letter}", tmp_path / letter) for letter in "ab")
    try:
        connect(first, second)
    except subprocess.CalledProcessError as error:
        take_down(first, second)
        pytest.skip(f"no hosts can be played here: {error.stderr.decode().strip()}")
    yield first, second
    take_down(first, second)


def connect(first: Host, second: Host) -> None:
    """Make the two; CalledProcessError where this process may not."""
    for host in (first, second):
        ip(f"netns add {host.name}")
    ip(f"link add {first.name} netns {first.name} type veth peer name {second.name} "
       f"netns {second.name}")  # fmt: skip
    for host, address, other, there in (
        (first, FIRST, second, SECOND),
        (second, SECOND, first, FIRST),
    ):
        ip(f"-n {host.name} addr add {address}/24 dev {host.name}")
        ip(f"-n {host.name} link set lo up")
        ip(f"-n {host.name} link set {host.name} up")
        names = f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n{there} {other.name}\n"
        host.names.write_text(names)
    listen = first.inside([sys.executable, "-c", LISTEN])
    with subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        call = second.inside([sys.executable, "-c", CALL])
        try:
            subprocess.run(call, check=True, capture_output=True)
        finally:
            listening.kill()


def take_down(*hosts: Host) -> None:
    for host in hosts:
        subprocess.run(["ip", "netns", "delete", host.name], capture_output=True)


def start(hosts: tuple[Host, Host], words: list[str]) -> list[subprocess.Popen[str]]:
    """Start three processes, two on the first host."""
    first, second = hosts
    place = ["--num_processes=3", f"--coordinator={first.name}:7654"]
    return [
        host.start([*TRAIN, *words, *place, f"--process_id={index}"])
        for index, host in enumerate((first, first, second))
    ]


def ended(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Return their exit statuses."""
    for process in processes:
        process.communicate(timeout=120)
    return [process.returncode for process in processes]


def bits(out: Path) -> str:
    return str(json.loads((out / "result.json").read_text())["variables_sha256"])


def test_two_hosts_end_in_the_bits_of_one(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = [sys.executable, "-m", "cnnjax", "launch", "--nproc=3", "--", *TRAIN, "--epochs=2"]
    subprocess.run([*words, f"--out={one}"], check=True, capture_output=True, env=ENVIRONMENT)
    assert ended(start(hosts, ["--epochs=2", f"--out={two}"])) == [0, 0, 0]
    assert bits(two) == bits(one)


@pytest.mark.long
@pytest.mark.parametrize(("accident", "others"), [("killed", 69), ("cut off", -6)])
def test_a_host_is_lost(
    hosts: tuple[Host, Host], tmp_path: Path, accident: str, others: int
) -> None:
    """The others end by themselves, by JAX's own heartbeat where nothing tells them; it goes on."""
    calm, lost = tmp_path / "calm", tmp_path / "lost"
    assert ended(start(hosts, ["--epochs=60", f"--out={calm}"])) == [0, 0, 0]
    running = start(hosts, ["--epochs=60", f"--out={lost}"])
    while not list(lost.glob("checkpoints/[0-9]*")):
        assert [process.poll() for process in running] == [None] * 3
        time.sleep(0.02)
    if accident == "killed":
        running[2].kill()
    else:
        hosts[1].cut_off()
    assert ended(running)[:2] == [others] * 2
    assert not (lost / "result.json").exists()
    ip(f"-n {hosts[1].name} link set {hosts[1].name} up")
    assert ended(start(hosts, ["--epochs=60", f"--out={lost}"])) == [0, 0, 0]
    assert bits(lost) == bits(calm)

"""A study whose directory is an S3 bucket: killed, resumed, reported and read as one on a disk.

The server is moto's, on this machine: PYTHONPATH needs `moto[server]` and `s3fs`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from study_commands import SLOWER, TIMES, Command, finish

import cnnjax
from cnnjax.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.extra]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """Serve S3 on a port of this machine, and let every process find it."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    words = [sys.executable, "-m", "moto.server", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with mock.patch.dict(os.environ, found), subprocess.Popen(words, **quiet) as process:
        wait_for_port(port)
        yield
        process.kill()


def wait_for_port(port: int) -> None:
    for _ in range(300):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("moto's server does not answer")


@pytest.fixture
def bucket() -> str:
    import s3fs

    # No listing may be an old one: another process writes.
    files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    files.mkdir("bucket")
    return "s3://bucket/study"


def results_in(address: str) -> dict[str, bytes]:
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    found = files.find(address.removeprefix("s3://"))
    return {path: files.cat(path) for path in found if path.endswith("result.json")}


@pytest.mark.filterwarnings("ignore")  # botocore's own
def test_killed_and_resumed_in_a_bucket_as_on_a_disk(
    command: Command, tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = tmp_path / "calm"
    assert finish(command(*SLOWER, f"--out={calm}", "--workers=2"))[0] == 0

    process = command(*SLOWER, f"--out={bucket}", "--workers=1")
    while not (kept := results_in(bucket)) and process.poll() is None:
        time.sleep(0.2)
    process.kill()
    finish(process)
    status, _, errors = finish(command(*SLOWER, f"--out={bucket}", "--workers=2"))
    assert status == 0 and "trials are done already" in errors, errors
    assert kept and kept.items() <= results_in(bucket).items()

    there, here = (cnnjax.results.load(out).runs.drop(columns=TIMES) for out in (bucket, calm))
    pd.testing.assert_frame_equal(there, here)
    assert main(["report", bucket]) == 0
    assert f"{bucket}/report.html" in capsys.readouterr().out

    trial = next(iter(kept)).removesuffix("/result.json")
    assert main(["certify", f"s3://{trial}"]) == 0
    assert main(["export", f"s3://{trial}", "--format=numpy", f"--out={tmp_path / 'x.npz'}"]) == 0
    assert (tmp_path / "x.npz").exists()
    assert main(["surgery", f"s3://{trial}", "--pool=mean", "--out=s3://bucket/mean"]) == 0
    assert cnnjax.results.load("s3://bucket/mean").runs["pool"].tolist() == ["mean"]


@pytest.mark.filterwarnings("ignore")
def test_a_bucket_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", *SLOWER, "--out=s3://nowhere/x"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and "s3://nowhere/x" in errors

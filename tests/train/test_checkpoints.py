"""Checkpoints: whole or set aside, this run's or refused, and never slower than they must be."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from cnnjax.train.checkpoints import CheckpointError, Checkpoints, uninterrupted
from cnnjax.train.fit import fit
from cnnjax.train.progress import Progress
from cnnjax.train.saver import Saver

OWNER = {"seed": 3}


def state(scale: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "params": {"kernel": scale * jnp.arange(600.0).reshape(30, 20), "bias": jnp.ones(4)},
        "step": jnp.int32(7),
        "key": jax.random.key(5),
        **more,
    }


def at(step: int, loss: float = 1.0) -> Progress:
    line = {"epoch": 1, "loss": loss, "accuracy": 0.1, "seconds": 0.1 + 0.2}
    return Progress(epoch=1, batch=step, step=step, lines=[line])


@pytest.fixture
def litter() -> Iterator[None]:
    """Collect the coroutines that Orbax leaves behind where a read fails."""
    yield
    gc.collect()


def saved(root: Path, *steps: int, losses: Any = None) -> Checkpoints:
    checkpoints = Checkpoints(root, owner=OWNER)
    for index, step in enumerate(steps):
        checkpoints.save(state(float(step)), at(step, losses[index] if losses else 1.0))
    checkpoints.close()
    return checkpoints


def restored(root: Path, template: Any = None, owner: Any = None) -> Any:
    with Checkpoints(root, owner=owner or OWNER) as checkpoints:
        return checkpoints.restore(state() if template is None else template)


def restored_step(root: Path) -> int | None:
    found = restored(root)
    if found is None:
        return None
    tree, progress = found
    expected = state(float(progress.step))
    assert (tree["params"]["kernel"] == expected["params"]["kernel"]).all()
    assert (jax.random.key_data(tree["key"]) == jax.random.key_data(expected["key"])).all()
    assert progress.lines == at(progress.step).lines
    return progress.step


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved(tmp_path / "c", 10)
    assert restored_step(tmp_path / "c") == 10


def test_nothing_there_is_none_and_imports_no_orbax(tmp_path: Path) -> None:
    code = (
        "import sys; from cnnjax.train.checkpoints import Checkpoints;"
        f"assert Checkpoints({str(tmp_path / 'c')!r}, owner={{}}).restore({{}}) is None;"
        "assert not [m for m in sys.modules if m.startswith('orbax')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "c").exists()


def test_last_three_and_the_best_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "c"
    saved(root, 1, 2, 3, 4, losses=[2.0, 0.5, 3.0, 4.0])
    saved(root, 5, 6, losses=[1.0, 1.0])
    assert sorted(int(p.name) for p in root.iterdir()) == [2, 4, 5, 6]


class Counter(struct.PyTreeNode):
    """A state that counts its steps."""

    count: np.ndarray
    params: Any = None


def test_the_best_is_that_of_the_lowest_loss_of_its_own_epoch(tmp_path: Path) -> None:
    losses = [2.0, 1.0, 0.1, 9.0, 5.0, 5.0]

    def step(state: Counter, batch: int) -> tuple[Counter, dict[str, float]]:
        loss = losses[int(state.count) // 2]
        return Counter(state.count + 1), {"loss": loss, "correct": 0.0, "count": 1.0}

    def feed(epoch: int, first: int) -> Iterator[int]:
        return iter(range(first, 2))

    with Checkpoints(tmp_path, owner=OWNER, keep=1) as checkpoints:
        between = Saver(checkpoints, 2).between
        fit(step, Counter(np.zeros(())), feed, epochs=6, between=between)
    kept = {int(path.name): json.loads((path / "metrics" / "metrics").read_text())["loss"]
            for path in tmp_path.iterdir()}  # fmt: skip
    assert kept == {6: pytest.approx(0.1), 12: 5.0}


def test_a_directory_of_another_name_is_left_alone(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    (tmp_path / "keep" / "metrics").mkdir(parents=True)
    (tmp_path / "keep" / "metrics" / "metrics").touch()
    assert restored_step(tmp_path) == 3


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def biggest(root: Path) -> Path:
    return max((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.slow
@pytest.mark.usefixtures("litter")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("what", ["state", "meta"])
def test_a_damaged_one_is_set_aside(
    tmp_path: Path, harm: Callable[[Path], None], what: str
) -> None:
    root = tmp_path / "c"
    saved(root, 10, 20, 30)
    for step in (20, 30):
        harm(biggest(root / str(step) / what))
    with pytest.warns(RuntimeWarning) as caught:
        assert restored_step(root) == 10
    assert [str(step) in str(w.message) for step, w in zip((30, 20), caught, strict=True)]
    assert {p.name for p in (tmp_path / "damaged").iterdir()} == {"20.0", "30.0"}
    assert restored_step(root) == 10
    saved(root, 20)
    assert restored_step(root) == 20


@pytest.mark.usefixtures("litter")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    """In any file of a checkpoint: the numbers come back as they were, or the one before does."""
    root = tmp_path / "c"
    saved(root, 10, 20)
    for path in sorted(p for p in (root / "20").rglob("*") if p.is_file()):
        content = path.read_bytes()
        flip(path) if content else path.write_bytes(b"x")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            step = restored_step(root)
        assert step in (10, 20), path
        if step == 10:
            (aside,) = (tmp_path / "damaged").iterdir()
            aside.rename(root / "20")
        path.write_bytes(content)
    assert restored_step(root) == 20


BIAS = jnp.ones(4)
OTHERS: dict[str, Any] = {
    r"params/kernel is float32\[30, 20\], expected float32\[30, 21\]": state(
        params={"kernel": jnp.zeros((30, 21)), "bias": BIAS}
    ),
    "params/kernel is float32.* expected bfloat16": state(
        params={"kernel": jnp.zeros((30, 20), jnp.bfloat16), "bias": BIAS}
    ),
    r"params/bias is float32\[4\], expected absent": state(params={"kernel": jnp.zeros((30, 20))}),
    r"average is absent, expected float32\[2\]": state(average=jnp.ones(2)),
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_network_is_refused_by_leaf(tmp_path: Path, message: str) -> None:
    saved(tmp_path / "c", 10)
    with pytest.raises(CheckpointError, match=message) as caught:
        restored(tmp_path / "c", OTHERS[message])
    assert "\n" not in str(caught.value)
    assert restored_step(tmp_path / "c") == 10


def test_another_run_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "c", 10)
    with pytest.raises(CheckpointError, match=r"another run's, with another lr, seed; choose"):
        restored(tmp_path / "c", owner={"seed": 4, "lr": 0.1})


def test_a_save_copies(tmp_path: Path) -> None:
    """What the state's memory is used for after `save` does not reach the disk."""
    checkpoints = Checkpoints(tmp_path / "c", owner=OWNER)
    step = jax.jit(
        lambda s: {**s, "params": jax.tree.map(lambda x: x + 1, s["params"])}, donate_argnums=0
    )
    now = step(state(10.0))
    expected = np.array(now["params"]["kernel"])
    progress = at(10)
    values = progress.saved()
    before = json.dumps(values)
    checkpoints.save(now, progress)
    for _ in range(20):
        now = step(now)
        progress.note({"loss": 1.0, "correct": 1.0, "count": 1.0})
        progress.look()
    progress.close()
    assert json.dumps(values) == before
    checkpoints.close()
    found = restored(tmp_path / "c")
    assert (found[0]["params"]["kernel"] == expected).all()


def test_a_full_disk_is_one_clear_error_and_the_old_ones_stay(tmp_path: Path) -> None:
    root = tmp_path / "c"
    saved(root, 10)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(root)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "a checkpoint could not be written" in done.stdout
    assert done.stdout.count("\n") == 1
    assert restored_step(root) == 10


FULL = """
import resource, sys
import numpy as np
from cnnjax.train.checkpoints import CheckpointError, Checkpoints, uninterrupted
from cnnjax.train.progress import Progress
checkpoints = Checkpoints(sys.argv[1], owner={"seed": 3})
checkpoints.last
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    checkpoints.save({"w": np.random.default_rng(0).normal(size=100_000)}, Progress(step=20))
    checkpoints.wait()
except CheckpointError as error:
    print(error)
"""


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which the processes of pytest-xdist ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_orbax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in a save it comes: what was begun is whole, and only then the run is interrupted.

    Broken off inside, one of twenty saves left threads that waited for ever.
    """
    checkpoints = saved(tmp_path, 1)
    manager = checkpoints._manager()
    save = type(manager).save

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return save(*args, **kwargs)

    monkeypatch.setattr(type(manager), "save", interrupted)
    with pytest.raises(KeyboardInterrupt), checkpoints:
        checkpoints.save(state(2.0), at(2))
    monkeypatch.undo()
    assert restored_step(tmp_path) == 2
    with pytest.raises(KeyboardInterrupt):  # the usual handler is back
        signal.raise_signal(signal.SIGINT)


def test_other_threads_are_never_interrupted() -> None:
    came: list[Any] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        with uninterrupted():
            came.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert came == [True]

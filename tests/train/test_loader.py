"""The loader gives the batches of images in memory, whoever reads them and wherever one begins."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from process_table import gone

from cnnjax import build, data
from cnnjax.cli import main
from cnnjax.config import Config
from cnnjax.data import Split
from cnnjax.train.batches import WHOLE, Batch, feed
from cnnjax.train.checkpoints import Checkpoints
from cnnjax.train.loader import Loader, Pairs
from cnnjax.train.saver import Saver, Stopped
from cnnjax.train.training import train

pytestmark = pytest.mark.extra
grain = pytest.importorskip("grain")

COUNT, SIZE = 23, 4
SPLIT = Split(
    np.arange(COUNT * 6, dtype=np.uint8).reshape(COUNT, 2, 3, 1), np.arange(COUNT, dtype=np.int32)
)
MEMORY = feed(SPLIT, batch_size=SIZE, seed=3)


def loader(workers: int = 0, part: slice = WHOLE) -> Loader:
    return Loader(Pairs(SPLIT), batch_size=SIZE, seed=3, part=part, workers=workers)


def same(found: Any, expected: Any) -> None:
    for a, b in itertools.zip_longest(found, expected):
        assert a.keys() == b.keys()
        for name in b:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


def test_every_epoch_is_that_of_images_in_memory() -> None:
    with loader() as read:
        for epoch in range(3):
            same(read(epoch, 0), MEMORY(epoch, 0))


def test_worker_processes_read_a_folder_from_disk(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for i in range(14):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 10 * i, np.uint8)).save(path)
    held, left = (
        data.load(f"folder:path={root}:size=4:keep={keep}").train for keep in ("memory", "disk")
    )
    assert not isinstance(left.images, np.ndarray)
    with Loader(Pairs(left), batch_size=4, seed=1, workers=2) as read:
        same(read(0, 1), feed(held, batch_size=4, seed=1)(0, 1))
    same(feed(left, batch_size=4, seed=1)(0, 1), feed(held, batch_size=4, seed=1)(0, 1))


def test_it_goes_on_at_any_batch() -> None:
    with loader() as read:
        for epoch, first in ((2, 3), (0, 5), (0, 6), (1, 0), (1, 1)):
            same(read(epoch, first), MEMORY(epoch, first))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_read_parts_of_the_same_batches(processes: int) -> None:
    share = SIZE // processes
    parts = [slice(p * share, (p + 1) * share) for p in range(processes)]
    for part in parts:
        with loader(part=part) as read:
            own = ({k: v[part] for k, v in batch.items()} for batch in MEMORY(1, 0))
            same(read(1, 0), own)


class Counting:
    """A source that knows what was read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.read.append(index)
        return SPLIT.images[index], int(SPLIT.labels[index])


def test_no_image_is_read_twice_an_epoch() -> None:
    source = Counting()
    with Loader(source, batch_size=COUNT, seed=0) as read:
        list(read(0, 0))
    whole = [source.read[i : i + COUNT] for i in range(0, len(source.read), COUNT)]
    assert sorted(whole[0]) == list(range(COUNT)), "the first epoch, whatever was read ahead"


def test_worker_processes_change_nothing_and_end(capfd: Any) -> None:
    """Two of them over the end of an epoch, then again from the middle of another."""
    with loader(workers=2) as read:
        same(itertools.chain(read(0, 4), read(1, 0)), [*MEMORY(0, 4), *MEMORY(1, 0)])
        same(itertools.islice(read(3, 2), 1), itertools.islice(MEMORY(3, 2), 1))
    assert not capfd.readouterr().err


def test_orbax_keeps_the_iterator(tmp_path: Path) -> None:
    """Grain's own way: its iterator in a checkpoint, restored into a fresh one."""
    from grain.checkpoint import CheckpointRestore, CheckpointSave
    from orbax import checkpoint

    batches: list[Batch] = [*MEMORY(0, 0), *MEMORY(1, 0)]
    stream = loader().iterator()
    same(itertools.islice(stream, 5), batches[:5])
    with checkpoint.CheckpointManager(tmp_path / "c") as manager:
        manager.save(5, args=checkpoint.args.Composite(data=CheckpointSave(stream)))
        manager.wait_until_finished()
        fresh = loader().iterator()
        manager.restore(5, args=checkpoint.args.Composite(data=CheckpointRestore(fresh)))
    same(itertools.islice(fresh, 6), batches[5:11])
    for one in (stream, fresh):
        one.close()


CONFIG = Config(
    dataset="digits_canvas:side=12:scale=1:train=44:test=20",
    epochs=2,
    batch_size=8,
    widths=(2,),
    dense=(),
    dropout=0.3,
    head="gap",
    data_workers=0,
)


@pytest.mark.slow
def test_training_ends_in_the_same_bits_stopped_or_not(tmp_path: Path) -> None:
    """Stopped in the middle of the second epoch."""
    dataset = data.load(CONFIG.dataset)
    net = build.build_net(CONFIG, dataset.num_classes, dataset.image_shape)
    expected = train(replace(CONFIG, data_workers=None), net, dataset)
    left = iter(range(8))
    with Checkpoints(tmp_path / "c", owner={}) as checkpoints:
        with pytest.raises(Stopped, match="after step 9"):
            stopping = Saver(checkpoints, stop=lambda: next(left, None) is None)
            train(CONFIG, net, dataset, saver=stopping)
        found = train(CONFIG, net, dataset, saver=Saver(checkpoints))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_worker_processes_end_with_a_killed_owner() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    workers = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(workers) == 2
    owner.kill()
    owner.wait()
    assert gone(workers, seconds=10)
    owner.stdout.close()


OWNER = """
import multiprocessing, time
import numpy as np
from cnnjax.data import Split
from cnnjax.train.checkpoints import Checkpoints
from cnnjax.train.loader import Loader, Pairs

if __name__ == "__main__":
    split = Split(np.zeros((9, 2, 2, 1), np.uint8), np.zeros(9, np.int32))
    with Loader(Pairs(split), batch_size=2, seed=0, workers=2) as loader:
        batches = loader(0, 0)
        next(batches)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(60)
"""


def test_mistakes_are_one_line(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["train", "--dataset=digits:train=40:test=20", "--data_workers=1"]
    assert main([*words, "--unit=epoch"]) == 2
    assert "unit: expected 'step' with data_workers, got 'epoch'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "grain", None)
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert "needs the package grain" in errors and "pip install 'cnnjax[grain]'" in errors
    assert errors.count("\n") == 1

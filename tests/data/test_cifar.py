from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import DATASETS, File, cifar, load

LAYOUT = "cifar-10-batches-bin"
Write = Callable[..., Path]


def md5_card(name: str, layout: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files in `folder` the official ones of a row."""
    card = DATASETS[name]
    files = tuple(
        File(file.name, md5=cifar.md5((folder / file.name).read_bytes()))
        for file in card.layouts[layout]
    )
    patched = dataclasses.replace(card, layouts={**card.layouts, layout: files})
    monkeypatch.setitem(DATASETS, name, patched)


def planes_of(folder: Path, name: str, label_bytes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    raw = np.frombuffer((folder / name).read_bytes(), np.uint8).reshape(-1, label_bytes + 3072)
    return raw[:, label_bytes - 1], raw[:, label_bytes:]


def test_every_pixel_is_where_the_format_says(write_cifar10: Write, tmp_path: Path) -> None:
    folder = write_cifar10()
    dataset = load("cifar10:verify=false", tmp_path)
    assert dataset.train.images.shape == (60, 32, 32, 3)
    assert dataset.train.labels.dtype == np.int32
    for batch in range(5):
        labels, planes = planes_of(folder, f"data_batch_{batch + 1}.bin")
        rows = slice(12 * batch, 12 * (batch + 1))
        assert np.all(dataset.train.labels[rows] == labels)
        for channel, row, column in ((0, 0, 0), (1, 31, 2), (2, 5, 30)):
            pixels = dataset.train.images[rows, row, column, channel]
            assert np.all(pixels == planes[:, 1024 * channel + 32 * row + column])
    labels, planes = planes_of(folder, "test_batch.bin")
    assert np.all(dataset.test.labels == labels)
    assert np.all(dataset.test.images == planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def pickle_batches(folder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in folder.glob("*.bin"):
        labels, planes = planes_of(folder, path.name)
        content = {"data": planes.copy(), "labels": labels.tolist(), "filenames": ["a.png"]}
        (target / path.stem).write_bytes(pickle.dumps(content, 2))


def test_pickled_layout_holds_the_same(write_cifar10: Write, tmp_path: Path) -> None:
    pickle_batches(write_cifar10(), tmp_path / "py" / "cifar-10-batches-py")
    binary = load("cifar10:verify=false", tmp_path)
    assert load("cifar10:verify=false", tmp_path / "py").checksum == binary.checksum
    inside = tmp_path / "py" / "cifar-10-batches-py"
    assert load("cifar10:verify=false", inside).checksum == binary.checksum


@pytest.mark.parametrize("pointing_at", [".", "cifar10", f"cifar10/{LAYOUT}"])
def test_official_sums_are_verified(
    pointing_at: str, write_cifar10: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar10()
    with pytest.raises(OSError, match=r"data_batch_1.bin: .* official file has 30730000"):
        load("cifar10", tmp_path / pointing_at)
    md5_card("cifar10", LAYOUT, folder, monkeypatch)
    assert len(load("cifar10", tmp_path / pointing_at).train.labels) == 60
    path = folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(OSError, match=r"test_batch.bin: MD5 .*verify=false"):
        load("cifar10", tmp_path / pointing_at)


def test_pickled_sums_are_verified_before_unpickling(
    write_cifar10: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickle_batches(write_cifar10(), tmp_path / "py" / "cifar-10-batches-py")
    monkeypatch.setattr(cifar.pickled, "loads", None)
    with pytest.raises(OSError, match="data_batch_1: MD5"):
        load("cifar10", tmp_path / "py")


def test_jpeg_twin_has_its_own_name_and_place(write_cifar10: Write, tmp_path: Path) -> None:
    folder = write_cifar10(f"cifar10_jpeg/{LAYOUT}")
    names = [load("cifar10_jpeg", place) for place in (tmp_path, folder.parent, folder)]
    assert len({dataset.checksum for dataset in names}) == 1
    with pytest.raises(FileNotFoundError, match=r"cifar10: data_batch_1\.bin not found"):
        load("cifar10:verify=false", tmp_path)


def test_official_files_are_refused_as_jpeg(
    write_cifar10: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar10()
    files = (File("test_batch.bin", md5=cifar.md5((folder / "test_batch.bin").read_bytes())),)
    monkeypatch.setitem(cifar.CIFAR10_LAYOUTS, LAYOUT, files)
    with pytest.raises(OSError, match="the official CIFAR-10; load it as cifar10"):
        load("cifar10_jpeg", folder)


def test_jpeg_takes_no_verify(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown parameter 'verify'"):
        load("cifar10_jpeg:verify=false", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (bytes(3072), "3072 bytes, not a whole number of 3073-byte records"),
        (bytes(3073 * 2 + 1), "not a whole number"),
        (b"\x0a" + bytes(3072), "label 10, expected 0 to 9"),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_3.bin", "test_batch.bin"])
def test_bad_batches(
    name: str, content: bytes, message: str, write_cifar10: Write, tmp_path: Path
) -> None:
    folder = write_cifar10()
    (folder / name).write_bytes(content)
    with pytest.raises(OSError, match=message) as raised:
        load("cifar10:verify=false", tmp_path)
    assert name in str(raised.value)


def test_missing_batch(write_cifar10: Write, tmp_path: Path) -> None:
    (write_cifar10() / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_4\.bin: not found"):
        load("cifar10:verify=false", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "labels is not a list of integers"),
        ({"labels": [1, "2"]}, "labels is not a list of integers"),
        ({"labels": [1]}, "1 labels for 2 images"),
        ({"labels": [1, -1]}, "label -1, expected 0 to 9"),
        ({"labels": [10, 0]}, "label 10, expected 0 to 9"),
        ({"data": [1, 2]}, "data is list, expected bytes"),
        ({"data": np.zeros((2, 100), np.uint8)}, r"data is \(2, 100\), expected bytes"),
        ({"data": np.zeros(6144, np.uint8)}, r"data is \(6144,\), expected bytes"),
        ({"data": np.zeros((0, 3072), np.uint8)}, "expected bytes"),
    ],
)
def test_bad_pickled_batch(change: dict[str, object], message: str, tmp_path: Path) -> None:
    content = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1], **change}
    for name in cifar.BATCHES:
        (tmp_path / name).write_bytes(pickle.dumps(content, 4))
    with pytest.raises(OSError, match=message) as raised:
        load("cifar10:verify=false", tmp_path)
    assert "data_batch_1" in str(raised.value)


def test_pickled_batch_of_the_other_set(tmp_path: Path) -> None:
    content = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 1]}
    for name in cifar.BATCHES:
        (tmp_path / name).write_bytes(pickle.dumps(content, 2))
    with pytest.raises(OSError, match="holds data, fine_labels; expected data and labels"):
        load("cifar10:verify=false", tmp_path)


def write_cifar100(folder: Path) -> None:
    folder.mkdir(parents=True)
    random = np.random.RandomState(2)
    for name, count in (("train.bin", 200), ("test.bin", 100)):
        fine = np.arange(count) % 100
        table = np.column_stack([fine // 5, fine, random.randint(0, 256, (count, 3072))])
        (folder / name).write_bytes(table.astype(np.uint8).tobytes())


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "cifar100" / "cifar-100-binary"
    write_cifar100(folder)
    dataset = load("cifar100:verify=false", tmp_path)
    labels, planes = planes_of(folder, "train.bin", 2)
    assert np.all(dataset.train.labels == labels)
    assert np.all(dataset.train.images[:, 3, 4, 1] == planes[:, 1024 + 32 * 3 + 4])
    assert dataset.num_classes == 100
    pickled_folder = tmp_path / "other" / "cifar-100-python"
    pickled_folder.mkdir(parents=True)
    for name in ("train", "test"):
        labels, planes = planes_of(folder, f"{name}.bin", 2)
        content = {"data": planes.copy(), "fine_labels": labels.tolist(), "coarse_labels": [0]}
        (pickled_folder / name).write_bytes(pickle.dumps(content, 2))
    assert load("cifar100:verify=false", tmp_path / "other").checksum == dataset.checksum


def test_cifar100_files_are_no_cifar10(tmp_path: Path) -> None:
    write_cifar100(tmp_path / "x")
    (tmp_path / "x" / "train.bin").rename(tmp_path / "x" / "data_batch_1.bin")
    with pytest.raises(OSError, match="not a whole number of 3073-byte records"):
        load("cifar10:verify=false", tmp_path / "x")

"""idx files, good and bad, through `load`."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnjax.data import DatasetCard, idx, load
from cnnjax.data.mnist import NAMES

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = NAMES


def header(kind: int, *shape: int) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + np.array(shape, ">u4").tobytes()


@pytest.mark.usefixtures("small_mnist")
def test_reads_every_pixel_and_label(mnist_files: dict[str, bytes], tmp_path: Path) -> None:
    dataset = load("mnist", tmp_path)
    assert dataset.train.images.shape == (40, 28, 28, 1)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32
    assert dataset.train.images.tobytes() == mnist_files[IMAGES][16:]
    assert dataset.test.images.tobytes() == mnist_files[TEST_IMAGES][16:]
    assert bytes(dataset.train.labels.astype(np.uint8)) == mnist_files[LABELS][8:]
    assert bytes(dataset.test.labels.astype(np.uint8)) == mnist_files[TEST_LABELS][8:]


@pytest.mark.parametrize("inside", ["mnist", "mnist/raw", "raw", "."])
@pytest.mark.usefixtures("small_mnist")
def test_finds_plain_files_wherever_they_may_lie(
    inside: str, mnist_files: dict[str, bytes], tmp_path: Path
) -> None:
    expected = load("mnist", tmp_path).checksum
    folder = tmp_path / "elsewhere" / inside
    folder.mkdir(parents=True)
    for name, content in mnist_files.items():
        (folder / name).write_bytes(content)
    assert load("mnist", tmp_path / "elsewhere").checksum == expected
    assert load("mnist", folder).checksum == expected


@pytest.mark.usefixtures("small_mnist")
def test_data_dir_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNJAX_DATA", str(tmp_path))
    assert load("mnist").checksum == load("mnist", tmp_path).checksum


def test_canvas_puts_mnist_in_the_middle(mnist_files: dict[str, bytes], tmp_path: Path) -> None:
    plain = load("mnist:verify=false", tmp_path)
    large = load("mnist_canvas:verify=false:side=40", tmp_path)
    assert (large.image_shape, large.slack) == ((40, 40, 1), 6)
    assert np.all(large.train.images[:, 6:34, 6:34] == plain.train.images)
    assert large.train.images.sum(dtype=int) == plain.train.images.sum(dtype=int)


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / f"{name}.gz").write_bytes(content)


def repack(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))

    return act


def swap(folder: Path) -> None:
    images, labels, spare = (folder / f"{n}.gz" for n in (IMAGES, LABELS, "spare"))
    images.rename(spare)
    labels.rename(images)
    spare.rename(labels)


# What happens to the files, the file that the error must name, and what it must say.
DAMAGE = {
    "missing": (lambda folder: (folder / f"{LABELS}.gz").unlink(), LABELS, "not found"),
    "empty": (replace(LABELS, b""), LABELS, "the file is empty"),
    "empty inside": (replace(LABELS, gzip.compress(b"")), LABELS, "not an idx file"),
    "not gzip": (replace(TEST_LABELS, b"<html>404</html>"), TEST_LABELS, "not a whole gzip"),
    "gzip cut": (
        lambda folder: (folder / f"{IMAGES}.gz").write_bytes(
            (folder / f"{IMAGES}.gz").read_bytes()[:-500]
        ),
        IMAGES,
        "not a whole gzip",
    ),
    "no idx": (repack(IMAGES, lambda raw: b"PNG" + raw), IMAGES, "not an idx file"),
    "other type": (
        repack(IMAGES, lambda raw: raw[:2] + b"\x0d" + raw[3:]),
        IMAGES,
        "type code 0x0d",
    ),
    "truncated": (
        repack(IMAGES, lambda raw: raw[:-1]),
        IMAGES,
        "31375 bytes where its header promises 31376",
    ),
    "too long": (
        repack(TEST_LABELS, lambda raw: raw + b"\0"),
        TEST_LABELS,
        "29 bytes where its header promises 28",
    ),
    "header cut": (
        repack(IMAGES, lambda raw: raw[:9]),
        IMAGES,
        "9 bytes, less than its header of 16",
    ),
    "no pictures": (replace(IMAGES, gzip.compress(header(8, 0, 28, 28))), IMAGES, "no data"),
    "swapped": (swap, IMAGES, "holds labels"),
    "labels are images": (
        repack(LABELS, lambda raw: header(8, 2, 28, 28) + bytes(2 * 784)),
        LABELS,
        "holds images",
    ),
    "count": (
        replace(LABELS, gzip.compress(header(8, 39) + bytes(39))),
        LABELS,
        "39 labels for the 40 images",
    ),
    "label range": (
        repack(TEST_LABELS, lambda raw: raw[:-1] + b"\x0a"),
        TEST_LABELS,
        "label 10, expected 0 to 9",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_one_line_that_names_the_file(
    case: str, mnist_files: dict[str, bytes], tmp_path: Path
) -> None:
    act, name, message = DAMAGE[case]
    act(tmp_path / "mnist")
    with pytest.raises(OSError, match=message) as raised:
        load("mnist:verify=false", tmp_path)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("mnist_files")
def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    for name, count in ((IMAGES, 40), (TEST_IMAGES, 20)):
        content = header(8, count, 14, 14) + bytes(count * 196)
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(OSError, match=r"pictures are \(14, 14\), expected \(28, 28\)"):
        load("mnist:verify=false", tmp_path)


@pytest.mark.parametrize("offset", [16, 5000, -1])
@pytest.mark.usefixtures("small_mnist")
def test_one_wrong_bit_is_noticed_and_may_be_accepted(
    offset: int, mnist_files: dict[str, bytes], tmp_path: Path
) -> None:
    changed = bytearray(mnist_files[IMAGES])
    changed[offset] ^= 1
    (tmp_path / "mnist" / IMAGES).write_bytes(changed)
    with pytest.raises(OSError, match=rf"{IMAGES}: MD5 .*verify=false"):
        load("mnist", tmp_path)
    assert load("mnist:verify=false", tmp_path).train.images.tobytes() == bytes(changed[16:])


@pytest.mark.usefixtures("mnist_files")
def test_official_sums_are_on_by_default(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the official file has 47040016; add verify=false"):
        load("mnist", tmp_path)


@pytest.mark.usefixtures("mnist_files")
def test_sums_of_the_packed_file_alone(tmp_path: Path) -> None:
    """Fashion-MNIST publishes the sums of its .gz files only."""
    with pytest.raises(OSError, match="differs from the official 8d4fb7e6"):
        load("fashion_mnist", tmp_path / "mnist")
    path = tmp_path / "mnist" / f"{IMAGES}.gz"
    (tmp_path / "mnist" / IMAGES).write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(OSError, match=f"only {IMAGES}.gz has an official checksum"):
        load("fashion_mnist", tmp_path / "mnist")
    assert load("fashion_mnist:verify=false", tmp_path / "mnist").classes[0] == "t-shirt/top"


def test_nothing_there_names_the_places_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cnnjax data fetch mnist") as raised:
        load("mnist", tmp_path)
    assert str(tmp_path / "mnist") in str(raised.value)


def test_data_dir_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        load("mnist", path)


def test_parse_shares_the_bytes() -> None:
    raw = header(8, 2, 3) + bytes(range(6))
    assert np.all(idx.parse(raw, "x", ndim=2) == [[0, 1, 2], [3, 4, 5]])


def test_official_card_is_complete(small_mnist: DatasetCard) -> None:
    assert [file.name for file in small_mnist.files] == list(NAMES)

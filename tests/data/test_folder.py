"""Folders of pictures: who is in which split, what is left out, what is refused."""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax.config import Config
from cnnjax.data import folder, load
from cnnjax.data.folder import Pictures, divide, find, split
from cnnjax.data.picture import Frame
from cnnjax.study.judge import places

Make = Callable[..., Path]
PARAMS = {"seed": 0, "validation_share": 0.1, "test_share": 0.2}


def draw(path: Path, seed: int, size: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.RandomState(seed).randint(0, 256, (size, size + 3, 3)).astype(np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that draws `count` pictures for each class below tmp_path/pictures."""

    def make(*, classes: Sequence[str] = ("cat", "dog"), count: int = 10, below: str = "") -> Path:
        root = tmp_path / "pictures"
        for name in classes:
            for i in range(count):
                draw(root / below / name / f"{i}.png", zlib.crc32(f"{below}/{name}/{i}".encode()))
        return root

    return make


def test_splits_are_whole_apart_balanced_and_named(make: Make) -> None:
    root = make(classes=("cat", "dog", "ant"), count=20)
    dataset = load(f"folder:{root}:size=8")
    assert dataset.classes == ("ant", "cat", "dog")
    assert dataset.image_shape == (8, 8, 3) and dataset.standardize
    assert dataset.validation is not None
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, count in (("train", 14), ("validation", 2), ("test", 4)):
        assert np.bincount(parts[name].labels).tolist() == [count] * 3
        frame = Frame(8)
        for image, label, source in zip(*parts[name], dataset.sources[name], strict=True):
            assert source.startswith(f"{dataset.classes[label]}/")
            assert np.array_equal(image, folder.picture.read(root / source, frame))
    everything = [source for names in dataset.sources.values() for source in names]
    assert len(everything) == len(set(everything)) == 60
    assert load(dataset.spec).checksum == dataset.checksum


def test_the_seed_chooses_and_a_new_picture_moves_hardly_any(make: Make) -> None:
    root = make(count=40)
    before = divide(root, PARAMS)
    other = divide(root, {**PARAMS, "seed": 1})
    assert before["test"].names != other["test"].names
    draw(root / "cat" / "new.png", 7)
    after = divide(root, PARAMS)
    for name in before:
        assert len({*before[name].names} - {*after[name].names}) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_small_classes_keep_a_picture_for_training(count: int) -> None:
    names = tuple(f"a/{i}" for i in range(count)) + tuple(f"b/{i}" for i in range(50))
    found = folder.Found(Path("x"), ("a", "b"), names, (0,) * count + (1,) * 50)
    parts = split(found, seed=3, validation=0.1, test=0.2)
    sizes = [sum(label == 0 for label in parts[p].labels) for p in ("train", "validation", "test")]
    assert sum(sizes) == count and sizes[0] >= 1
    assert (min(sizes) >= 1) == (count >= 3)
    if count == 100:
        assert sizes == [70, 10, 20]


def test_a_directory_divided_already_stays_so(make: Make) -> None:
    for part in ("train", "val", "test"):
        root = make(count=4 if part == "train" else 2, below=part)
    parts = divide(root, PARAMS)
    assert {name: len(found.names) for name, found in parts.items()} == {
        "train": 8,
        "validation": 4,
        "test": 4,
    }
    assert all(n.startswith("val/") for n in parts["validation"].names)


def test_what_is_missing_is_taken_from_train(make: Make) -> None:
    for part in ("train", "test"):
        root = make(count=10, below=part)
    parts = divide(root, PARAMS)
    assert [len(parts[p].names) for p in ("train", "validation", "test")] == [18, 2, 20]
    assert all(n.startswith("train/") for n in parts["validation"].names)


def test_parts_with_other_classes_are_refused(make: Make) -> None:
    make(below="train")
    root = make(classes=("cat", "cow"), below="test")
    with pytest.raises(ValueError, match="train and test differ in the classes cow, dog"):
        divide(root, PARAMS)


def test_unreadable_pictures_are_skipped_and_counted(make: Make) -> None:
    root = make()
    (root / "cat" / "3.png").write_bytes(b"broken")
    (root / "dog" / "empty.jpg").write_bytes(b"")
    with pytest.warns(
        RuntimeWarning, match=r"skipped 2 of 21 pictures: .*cat/3.png: not a picture"
    ):
        dataset = load(f"folder:{root}:size=8")
    everything = [source for names in dataset.sources.values() for source in names]
    assert len(everything) == 19
    assert not {"cat/3.png", "dog/empty.jpg"} & {*everything}


def test_links_out_of_the_folder_are_left_out(make: Make, tmp_path: Path) -> None:
    root = make()
    draw(tmp_path / "secret.png", 1)
    draw(tmp_path / "elsewhere" / "more.png", 2)
    os.symlink(tmp_path / "secret.png", root / "cat" / "link.png")
    os.symlink(root / "cat" / "1.png", root / "cat" / "inside.png")
    os.symlink(tmp_path / "elsewhere", root / "cat" / "folder")
    os.symlink(root, root / "cat" / "loop")
    with pytest.warns(RuntimeWarning, match=r"left out 3 links that lead out of .* or to a folder"):
        found = find(root)
    assert "cat/link.png" not in found.names and "cat/inside.png" in found.names
    assert len(found.names) == 21


def test_pictures_that_stay_on_disk_are_those_in_memory(make: Make) -> None:
    root = make()
    for i in range(8):  # of every split some
        (root / "cat" / f"torn{i}.png").write_bytes(b"torn")
    with pytest.warns(RuntimeWarning, match="skipped 8 of 28"):
        held = load(f"folder:path={root}:size=8")
    with pytest.warns(RuntimeWarning, match="skipped 8 of 28"):
        left = load(f"folder:path={root}:size=8:keep=disk")
    assert isinstance(left.train.images, folder.OnDisk)
    assert left.checksum == held.checksum and (left.mean, left.std) == (held.mean, held.std)
    assert left.sources == held.sources
    back = pickle.loads(pickle.dumps(left.train.images))  # as Grain's processes get it
    for index in (3, slice(2, 9, 3), np.array([5, 0, 5]), slice(0, 0)):
        np.testing.assert_array_equal(back[index], held.train.images[index])
    np.testing.assert_array_equal(np.asarray(back), held.train.images)


def test_only_what_is_kept_in_memory_is_limited(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make()
    monkeypatch.setattr(folder, "MOST_BYTES", 8 * 8 * 3 * 10)  # 14 of 20 are for training
    with pytest.raises(ValueError, match="or keep=disk for those of training"):
        load(f"folder:path={root}:size=8")
    assert len(load(f"folder:path={root}:size=8:keep=disk").train.images) == 14
    with pytest.raises(ValueError, match="keep=ram: expected memory or disk"):
        load(f"folder:path={root}:keep=ram")


def test_tiny_pictures_have_places_to_move_to(make: Make) -> None:
    dataset = load(f"folder:path={make()}:size=7")
    offsets = places(Config(dataset=dataset.spec), dataset)
    assert len(offsets) == 9 and abs(offsets).max() == 1


def test_a_pipe_is_no_picture(make: Make) -> None:
    folder = make()
    os.mkfifo(folder / "cat" / "pipe.png")
    with pytest.warns(RuntimeWarning, match="left out 1"):
        found = find(folder)
    assert not any("pipe" in name for name in found.names)


def test_a_class_of_links_out_of_the_folder_says_so(make: Make, tmp_path: Path) -> None:
    root = make()
    draw(tmp_path / "elsewhere" / "more.png", 2)
    os.symlink(tmp_path / "elsewhere", root / "cow")
    with pytest.raises(ValueError, match=r"cow: no picture of this class .* left out 1 link that"):
        find(root)


def test_names_need_not_be_utf_8(make: Make) -> None:
    root = make()
    try:
        os.rename(root / "cat" / "1.png", os.fsencode(root / "cat") + b"/b\xe4d.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    dataset = load(f"folder:{root}:size=8")
    assert sum(map(len, dataset.sources.values())) == 20


def test_hidden_files_and_other_kinds_are_no_pictures(make: Make) -> None:
    root = make()
    draw(root / "cat" / "deep" / "er" / "x.PNG", 5)
    for name in ("._1.png", ".DS_Store", "notes.txt", "Thumbs.db"):
        (root / "dog" / name).write_bytes(b"?")
    (root / ".cache").mkdir()
    assert find(root).names[-11:][0] == "cat/deep/er/x.PNG"
    assert len(find(root).names) == 21


def test_random_access(make: Make) -> None:
    root = make()
    (root / "dog" / "1.png").write_bytes(b"broken")
    source = Pictures(find(root), Frame(8, 1))
    assert len(source) == 20
    item = source[3]
    assert item["image"].shape == (8, 8, 1) and item["image"].dtype == np.uint8
    assert item["label"] == 0 and source[19]["label"] == 1
    with pytest.raises(OSError, match=r"dog/1\.png"):
        source[11]


def test_parameters_shape_the_pictures(make: Make) -> None:
    root = make()
    dataset = load(f"folder:path={root}:size=9:channels=1:fit=stretch:validation_share=0.0")
    assert dataset.image_shape == (9, 9, 1)
    assert dataset.validation is None and dataset.fit == "stretch"
    assert dataset.checksum != load(f"folder:path={root}:size=9:channels=1").checksum


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (":size=0", "size=0"),
        (":channels=4", "channels=4"),
        (":fit=zoom", "fit=zoom"),
        (":test_share=0.9:validation_share=0.2", "leave some for train"),
        (":test_share=-0.1", "shares from 0 on"),
        (":test_share=0.0", "no picture for test"),
        (":sise=3", "did you mean size"),
        (":test=3000", "test=3000: expected 1 to 4"),
    ],
)
def test_bad_parameters(make: Make, extra: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        load(f"folder:{make()}{extra}")
    assert "\n" not in str(raised.value)


def test_directories_that_are_no_set(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a directory, as in folder:"):
        load("folder")
    with pytest.raises(FileNotFoundError, match="nowhere is not a directory"):
        load(f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="sub-folder for each class, at least 2; there is none"):
        load(f"folder:{tmp_path / 'empty'}")
    root = make(classes=("cat",))
    with pytest.raises(ValueError, match="at least 2; there is only 'cat'"):
        load(f"folder:{root}")
    (root / "dog").mkdir()
    with pytest.raises(ValueError, match="dog: no picture of this class inside"):
        load(f"folder:{root}")
    (root / "dog" / "1.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="no readable picture of dog is left for train"):
        load(f"folder:{root}")


def test_too_much_for_memory_is_said_before_a_picture_is_read(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make()
    monkeypatch.setattr(folder, "MOST_BYTES", 20 * 8 * 8 * 3 - 1)
    monkeypatch.setattr(folder, "load", lambda *_: pytest.fail("a picture was read"))
    with pytest.raises(ValueError, match=r"20 pictures of 8 x 8 x 3 take .* GiB, more than the"):
        load(f"folder:{root}:size=8")

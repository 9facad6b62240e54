"""End to end on pictures in a folder: train, judge, export, and go on with the same alone."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnjax import cli, data
from cnnjax.data.files import data_root
from cnnjax.study.trained import load

SMALL = ["--widths=4x8", "--dense=", "--head=gap", "--batch_size=16", "--eval_places=2"]


def draw(root: Path, count: int = 24) -> Path:
    """Stripes, upright or level, on noise: pictures of many sizes and kinds."""
    random = np.random.RandomState(0)
    for axis, name in enumerate(("level", "upright")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            size = random.randint(20, 40, 2)
            stripes = np.indices(size)[axis] // 3 % 2 * 180 + random.randint(0, 60, size)
            kind = ("png", "jpg", "bmp", "gif", "webp")[i % 5]
            Image.fromarray(stripes.astype(np.uint8)).save(root / name / f"{i}.{kind}")
    return root


def judged(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> float:
    """Return the share of pictures below folder/<class> that the command gets right."""
    capsys.readouterr()
    assert cli.main(["predict", str(run), str(folder), "--json"]) == 0
    verdicts = json.loads(capsys.readouterr().out)["pictures"]
    return float(np.mean([v["class"] == Path(v["path"]).parent.name for v in verdicts]))


def test_from_a_folder_to_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = draw(tmp_path / "pictures"), tmp_path / "run"
    spec = f"--dataset=folder:path={folder}:size=16:channels=1:validation_share=0.2"
    words = ["train", spec, *SMALL, "--augment=flip+colour+mixup", "--epochs=12", "--lr=0.02"]
    assert cli.main([*words, f"--out={run}"]) == 0
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    assert metrics["accuracy"] > 0.8
    assert metrics["temperature"] > 0
    assert 0 <= metrics["calibration_error_scaled"] <= 1
    known = json.loads((run / "data.json").read_text())
    assert known["recipe"]["classes"] == ["level", "upright"]
    assert {part: len(names) for part, names in known["splits"].items()} == {
        "train": 28,
        "validation": 10,
        "test": 10,
    }
    dataset = data.load(spec.removeprefix("--dataset="))
    trained = load(run)
    assert trained.temperature == metrics["temperature"]
    right = np.argmax(trained.logits(dataset.test.images), axis=-1) == dataset.test.labels
    assert np.mean(right) == pytest.approx(metrics["accuracy"])
    assert judged(run, folder, capsys) > 0.8
    assert cli.main(["export", str(run), "--format=numpy", f"--out={tmp_path / 'net.npz'}"]) == 0


def test_a_run_goes_on_only_with_the_pictures_it_began_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = draw(tmp_path / "pictures", 8), tmp_path / "run"
    words = ["train", f"--dataset=folder:path={folder}:size=8", *SMALL, "--epochs=1"]
    assert cli.main([*words, f"--out={run}", "--battery=none"]) == 0
    (run / "result.json").unlink()
    (folder / "level" / "0.png").unlink()
    assert cli.main([*words, f"--out={run}", "--battery=none"]) == 2
    assert "the data set is not the one this run began with" in capsys.readouterr().err


def unpacked(root: Path, per_class: dict[str, int]) -> Path:
    """Write JPEGs of CIFAR-10 (JPEG) as root/{train,test}/<class>/, so many a class."""
    left = {}
    with tarfile.open(data_root(None) / "cifar10-jpeg.tar.gz") as archive:
        for member in archive:
            part = member.name.rpartition("/")[0]
            split = part.partition("/")[0]
            count = left.setdefault(part, per_class.get(split, 0))
            if member.isfile() and count:
                left[part] = count - 1
                archive.extract(member, root, filter="data")
    return root


@pytest.mark.slow
@pytest.mark.shared
def test_cifar10_jpeg_as_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2,000 + 400 pictures of CIFAR-10 (JPEG): far above chance, judged and exported alike."""
    folder = unpacked(tmp_path / "cifar", {"train": 200, "test": 40})
    run, widths = tmp_path / "run", ["--widths=16x32x32", "--dense=", "--head=gap", "--threads=2"]
    words = ["train", f"--dataset=folder:{folder}", *widths, "--augment=flip", "--epochs=12"]
    assert cli.main([*words, "--norm=batch", "--lr=0.01", "--battery=none", f"--out={run}"]) == 0
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    known = json.loads((run / "data.json").read_text())
    counts = {part: len(names) for part, names in known["splits"].items()}
    assert counts == {"train": 1800, "validation": 200, "test": 400}
    assert metrics["accuracy"] > 0.35
    assert judged(run, folder / "test", capsys) == pytest.approx(metrics["accuracy"], abs=0.01)
    assert cli.main(["export", str(run), "--format=numpy", f"--out={tmp_path / 'net.npz'}"]) == 0
    pytest.importorskip("jax2onnx")
    assert cli.main(["export", str(run), f"--out={tmp_path / 'net.onnx'}"]) == 0


@pytest.mark.slow
@pytest.mark.shared
def test_all_of_cifar10_jpeg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """60,000 JPEGs are what Pillow gives one by one; an epoch of them is judged and exported."""
    folder = unpacked(tmp_path / "cifar", {"train": 5000, "test": 1000})
    spec = f"folder:path={folder}:validation_share=0.0"
    dataset = data.load(spec)
    assert dataset.train.images.shape == (50_000, 32, 32, 3)
    assert np.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.classes == data.DATASETS["cifar10"].classes
    for index in range(0, 10_000, 501):
        with Image.open(folder / dataset.sources["test"][index]) as picture:
            assert np.array_equal(picture.convert("RGB"), dataset.test.images[index])
    run, small = tmp_path / "run", ["--widths=16x32", "--dense=", "--head=gap", "--threads=2"]
    words = ["train", f"--dataset={spec}", *small, "--epochs=1", "--lr=0.01", f"--out={run}"]
    assert cli.main([*words, "--norm=batch", "--battery=none", "--train_shift=0"]) == 0
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["accuracy"]
    assert accuracy > 0.35
    assert judged(run, folder / "test", capsys) == pytest.approx(accuracy, abs=0.001)
    assert cli.main(["export", str(run), "--format=numpy", f"--out={tmp_path / 'net.npz'}"]) == 0
    pytest.importorskip("jax2onnx")
    assert cli.main(["export", str(run), f"--out={tmp_path / 'net.onnx'}"]) == 0

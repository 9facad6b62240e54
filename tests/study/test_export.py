"""Export: arrays that rebuild the network; ONNX files that onnxruntime agrees with."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnjax import NETS, POOLS, cli, data
from cnnjax.study import export
from cnnjax.study.keeping import fingerprint
from cnnjax.study.trained import load

MakeRun = Callable[..., Path]
# What selects by content at evaluation, or draws regions: the converter lacks its operations.
REFUSED = ("aps", "aps_blur", "max_aps", "lps", "canonical", "fractional_max")
CANVAS = "digits_canvas:side=32:scale=2:train=50:test=20"
ALEX = {"widths": (4, 4, 6, 6, 4), "dense": (8, 8), "head": "flatten"}
ARMS = {name: "canonical:method=softpool" if name == "canonical" else name for name in POOLS}


def test_arrays_and_manifest(make_run: MakeRun, tmp_path: Path) -> None:
    run, out = make_run(temperature=1.5), tmp_path / "net.npz"
    assert cli.main(["export", str(run), "--format=numpy", f"--out={out}"]) == 0
    trained = load(run)
    with np.load(out) as file:
        arrays = dict(file)
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["format"] == "cnnjax-arrays-1" and about["temperature"] == 1.5
    assert about["recipe"]["classes"] == list("0123456789")
    assert about["sha256"] == fingerprint(dict(sorted(arrays.items())))
    assert {k: (v["shape"], v["dtype"]) for k, v in about["arrays"].items()} == {
        k: (list(v.shape), str(v.dtype)) for k, v in arrays.items()
    }
    kernel = trained.variables["params"]["logits"]["kernel"]
    assert any(np.array_equal(array, kernel) for array in arrays.values())


def test_mistakes_are_one_line(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(make_run())
    for words, text in [
        ([], "expected one run, got none"),
        ([run, run], "expected one run"),
        ([run], "--out=FILE"),
        ([run, "--format=onyx", "--out=x"], "format: unknown name 'onyx'; did you mean onnx"),
        ([run, "--format=numpy", "--out=x.bin"], "ends in .npz, got 'x.bin'"),
        ([str(tmp_path), "--out=x"], "no trial here"),
    ]:
        assert cli.main(["export", *words]) == 2
        shown = capsys.readouterr()
        assert text in shown.err and shown.err.count("\n") == 1


def test_a_missing_extra_says_how_to_get_it(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "NEEDED", ("no_such_package",))
    with pytest.raises(OSError, match=r"pip install 'cnnjax\[onnx\]'"):
        export.to_onnx(load(make_run()), tmp_path / "x.onnx")


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in POOLS if name not in REFUSED])
def test_onnx_gives_the_same_logits(name: str, make_run: MakeRun, tmp_path: Path) -> None:
    """Compared here with the network's own logits on real images, in a session of our own."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    trained = load(make_run(pool=ARMS[name], stride=2, temperature=0.7))
    before = logging.root.manager.disable
    export.to_onnx(trained, tmp_path / "net.onnx")
    assert logging.root.manager.disable == before
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (entry,) = session.get_inputs()
    free = not isinstance(entry.shape[0], int)
    assert free == (name not in ("spectral", "flc", "diffstride"))
    images = data.load("digits:test=20").test.images
    parts = np.split(images, [7] if free else range(1, len(images)))
    logits = np.concatenate([session.run(None, {"image": part})[0] for part in parts])
    np.testing.assert_allclose(logits, np.asarray(trained.logits(images)), rtol=0, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list("0123456789")
    assert json.loads(metadata["temperature"]) == 0.7


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {"net": "stn", "dense": (6,)},
        {"transformer": "translation", "head": "gem"},
        {"head": "lse"},
        {"net": "lenet5_modern", "norm": "response", "activation": "prelu"},
        {"net": "lenet5"},
        {"net": "resnet20_cifar", "widths": (3, 4, 5)},
        {"net": "base_cnn_a", "dataset": CANVAS},
        {"net": "all_cnn_c", "padding": "ZEROS"},
        {"net": "resnet18_cifar", "widths": (2, 3, 4, 5)},
        {"net": "vgg13bn_cifar", "widths": (2, 2, 3, 3, 4), "dataset": CANVAS},
        {"net": "googlenet", "dataset": CANVAS},
        {"net": "alexnet_2012", "padding": None, "dataset": CANVAS.replace("32", "67"), **ALEX},
    ],
    ids=lambda choices: choices.get("net", "cnn"),
)
def test_onnx_of_other_networks(choices: dict[str, Any], make_run: MakeRun, tmp_path: Path) -> None:
    """For any number of images; what the small run's defaults name and a network lacks is None."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    taken = NETS[choices.get("net", "cnn")].defaults
    lacks = {name: None for name in ("widths", "dense") if name not in taken}
    assert export.to_onnx(load(make_run(**lacks | choices)), tmp_path / "net.onnx") <= 1e-4
    (entry,) = onnxruntime.InferenceSession(tmp_path / "net.onnx").get_inputs()
    assert not isinstance(entry.shape[0], int)


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_onnx_refuses_with_a_reason(name: str, make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx")
    trained = load(make_run(pool=ARMS[name], stride=2))
    with pytest.raises(ValueError, match=rf"cnn with {name}.*(written as ONNX|refuses it): ."):
        export.to_onnx(trained, tmp_path / "net.onnx")
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.extra
@pytest.mark.slow
def test_onnx_that_differs_is_not_written(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jax2onnx")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match=r"differ by .* nothing is written"):
        export.to_onnx(load(make_run()), tmp_path / "net.onnx")
    assert not list(tmp_path.glob("*.onnx"))

"""Judging pictures: the run's own preprocessing, order, batches, and what cannot be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from cnnjax import cli, data
from cnnjax.study.predict import Skipped, Verdict, find, predict
from cnnjax.study.trained import load

MakeRun = Callable[..., Path]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The test pictures of the digits as PNG files, and one file that is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i, image in enumerate(data.load("digits:train=50:test=20").test.images[..., 0]):
        Image.fromarray(image).save(folder / ("more" if i % 2 else "") / f"{i:02}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_verdicts_are_those_of_the_arrays(make_run: MakeRun, pictures: Path) -> None:
    trained = load(make_run(temperature=0.5))
    paths = find([str(pictures)])
    found = list(predict(trained, paths, top=3, batch_size=8))
    assert [item.path for item in found] == paths and len(paths) == 21
    images = data.load("digits:train=50:test=20").test.images
    expected = softmax(np.asarray(trained.logits(images)) / 0.5, axis=-1)
    for item in found:
        if isinstance(item, Skipped):
            assert item.path.name == "broken.png" and "not a picture of a known kind" in item.reason
            continue
        row = expected[int(item.path.stem)]
        best = np.argsort(-row)[:3]
        assert item.classes == tuple(str(i) for i in best)
        np.testing.assert_allclose(item.probabilities, row[best], atol=1e-5)
    assert sum(isinstance(item, Verdict) for item in found) == 20


def test_the_data_need_not_be_there(
    make_run: MakeRun, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the data set was loaded"))
    assert load(run).recipe.classes == tuple("0123456789")


@pytest.mark.parametrize("left", [None, "{", "[1]", '{"sha256": "-"}'])
def test_a_run_without_a_recipe_loads_its_data_set(make_run: MakeRun, left: str | None) -> None:
    run = make_run()
    new = load(run)
    (run / "data.json").unlink()
    if left is not None:
        (run / "data.json").write_text(left)
    assert load(run).recipe == new.recipe


def test_colour_pictures_for_a_grey_network_and_any_size(make_run: MakeRun, tmp_path: Path) -> None:
    Image.new("RGBA", (70, 50), (200, 10, 10, 128)).save(tmp_path / "a.png")
    (found,) = predict(load(make_run()), [tmp_path / "a.png"])
    assert isinstance(found, Verdict) and len(found.classes) == 5
    assert 0.5 < sum(found.probabilities) <= 1.0001


def test_the_command(make_run: MakeRun, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(make_run(temperature=2.0)), str(pictures)]
    assert cli.main([*words, "--top=2"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert len(lines) == 20
    path, _, rest = lines[0].partition(": ")
    assert Path(path).exists() and rest.count(",") == 1
    assert "skipped 1 of 21 files" in shown.err and "broken.png: not a picture" in shown.err
    assert cli.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["temperature"] == 2.0
    assert len(document["pictures"]) == 20 and len(document["skipped"]) == 1
    first = document["pictures"][0]
    assert first["class"] == first["top"][0]["class"] and len(first["top"]) == 5
    assert f"{first['class']} {first['probability']:.4f}" in lines[0]


def test_links_out_of_a_directory_are_left_out(pictures: Path, tmp_path: Path) -> None:
    """Named themselves they are followed; a link to a neighbour is a picture as any other."""
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    for name, target in (("a", tmp_path / "secret.png"), ("b", tmp_path / "nowhere.png")):
        (pictures / f"{name}.png").symlink_to(target)
    (pictures / "c.png").symlink_to(pictures / "00.png")
    (pictures / "d").symlink_to(tmp_path)
    with pytest.warns(RuntimeWarning, match="predict: left out 3 links that lead out of") as said:
        found = {path.name for path in find([str(pictures)])}
    assert len(said) == 1 and len(found) == 22
    assert "c.png" in found and not {"a.png", "b.png"} & found
    assert find([str(pictures / "a.png")]) == [pictures / "a.png"]


def test_variables_of_another_network_are_named(
    make_run: MakeRun, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    config = run / "config.json"
    config.write_text(config.read_text().replace('"head": "gap"', '"head": "flatten"'))
    assert cli.main(["predict", str(run), str(pictures / "00.png")]) == 2
    said = capsys.readouterr().err
    assert f"{run}: its variables do not fit its config" in said and said.count("\n") == 1


def test_names_that_cannot_be_printed(
    make_run: MakeRun, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a picture, whatever its name: line ends and bytes that are no UTF-8 are escaped."""
    run = str(make_run())
    os.rename(pictures / "02.png", pictures / "a\nb.png")
    try:
        os.rename(pictures / "00.png", os.fsencode(pictures) + b"/b\xe4d.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert cli.main(["predict", run, str(pictures)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") == 20
    assert "b\\udce4d.png: " in shown and "a\\nb.png: " in shown
    assert cli.main(["predict", run, str(pictures), "--json"]) == 0
    assert "b\\udce4d.png" in capsys.readouterr().out


def test_nothing_readable_is_status_1(make_run: MakeRun, pictures: Path) -> None:
    assert cli.main(["predict", str(make_run()), str(pictures / "broken.png")]) == 1


def mistakes(run: Path, folder: Path) -> list[tuple[list[str], str]]:
    return [
        ([], "expected a run and pictures"),
        ([str(run)], "expected a run and pictures"),
        ([str(run), str(folder / "none.png")], "none.png: no such picture"),
        ([str(run), str(folder / "empty")], "no picture in it (.png"),
        ([str(folder), str(folder)], "no trial here"),
        ([str(run), str(folder), "--top=0"], "top"),
        ([str(run.parent / "torn"), str(folder)], "variables.npz: not a whole .npz file"),
    ]


def test_mistakes_are_one_line(
    make_run: MakeRun, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "empty").mkdir()
    torn = make_run(name="torn") / "variables.npz"
    torn.write_bytes(torn.read_bytes()[:99])
    for words, text in mistakes(make_run(), pictures):
        assert cli.main(["predict", *words]) == 2
        shown = capsys.readouterr()
        assert text in shown.err and shown.err.count("\n") == 1 and not shown.out


def test_a_study_of_several_trials_asks_which(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("trials/a", "trials/b"):
        make_run(name=name)
    with pytest.raises(ValueError, match=r"a study of 2 trained trials; choose one, as .*trials/a"):
        load(tmp_path)
    (tmp_path / "trials" / "b" / "variables.npz").unlink()
    assert load(tmp_path).root == tmp_path / "trials" / "a"


def test_a_network_of_two_channels_takes_no_pictures(make_run: MakeRun, pictures: Path) -> None:
    trained = load(make_run("shapes:n=40:channels=2"))
    with pytest.raises(ValueError, match="takes arrays of shape"):
        list(predict(trained, find([str(pictures)])))

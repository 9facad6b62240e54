"""Surgery: weights stay bit by bit, a change that keeps the function changes nothing, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cnnjax import data
from cnnjax.cli import main
from cnnjax.cli.surgery import lines
from cnnjax.config import Config, from_dict, trial_id
from cnnjax.study.store import TrialFiles
from cnnjax.study.surgery import changed, operate, transplant
from cnnjax.study.trained import load
from cnnjax.study.trial import run

CONFIG = Config(
    dataset="digits_canvas:side=18:scale=1:train=200:test=60",
    widths=(4, 6),
    dense=(),
    head="gap",
    norm="batch",
    padding="CIRCULAR",
    stride=3,
    epochs=2,
    batch_size=20,
    eval_places=3,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    run(CONFIG, out)
    return out


def test_the_same_choice_changes_nothing(trained: Path) -> None:
    found = operate(trained, {"pool": "max", "padding": "CIRCULAR"})
    assert found["after"] == found["before"]
    assert (found["fresh"], found["dropped"], found["tuned"]) == ([], [], None)


@pytest.mark.slow
def test_selection_by_phase_buys_consistency_with_the_weights_there_are(trained: Path) -> None:
    """APS is exactly invariant whatever the weights; a run of its own keeps them to the bit."""
    before = dict(TrialFiles(trained).variables())
    found = operate(trained, {"pool": "aps"}, out=trained / "aps")
    assert found["after"]["circular_consistency"] == 1.0
    assert found["before"]["circular_consistency"] < 1.0
    files = TrialFiles(trained / "aps")
    kept = files.variables()
    assert {k: v.tobytes() for k, v in kept.items()} == {k: v.tobytes() for k, v in before.items()}
    config, result = from_dict(files.config()), files.result()
    assert config == dataclasses.replace(CONFIG, pool="aps")
    assert result is not None
    assert result["metrics"] == found["after"]
    with pytest.raises(FileExistsError, match="holds another trial"):
        run(config, files.root)  # it is no trial of that config
    with pytest.raises(FileExistsError, match="is not empty"):
        operate(trained, {"pool": "aps"}, out=trained / "aps")


def test_its_run_judges_pictures_without_the_data_set(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operate(trained, {"pool": "aps"}, out=tmp_path / "aps")
    assert TrialFiles(tmp_path / "aps").data() == TrialFiles(trained).data()
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the data set was loaded"))
    assert load(tmp_path / "aps").recipe == load(trained).recipe


@pytest.mark.slow
def test_fine_tuning_lowers_the_loss_and_leaves_the_run_alone(trained: Path) -> None:
    before = {k: v.tobytes() for k, v in TrialFiles(trained).variables().items()}
    found = operate(trained, {"pool": "mean"}, finetune_steps=30, lr=0.01)
    assert found["tuned"]["test_loss"] < found["after"]["test_loss"]
    assert {k: v.tobytes() for k, v in TrialFiles(trained).variables().items()} == before


@pytest.mark.slow
def test_a_pool_with_parameters_starts_untrained(trained: Path) -> None:
    found = operate(trained, {"pool": "mixed"})
    assert [name.rsplit("/", 1)[0] for name in found["fresh"]] == [
        "params/stage0/pool",
        "params/stage1/pool",
    ]


def test_another_shape_is_refused_by_name(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["surgery", str(trained), "--head=flatten"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "head=flatten: params/logits/kernel was trained with shape (6, 10)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected one directory of a trained run"),
        (["RUN"], "expected something to change"),
        (["RUN", "--pool=apss"], "did you mean aps"),
        (["RUN", "--pool=aps", "--stride=5"], "does not divide"),
        (["/nowhere", "--pool=aps"], "/nowhere"),
        (["RUN", "--finetune_steps=-1"], "finetune_steps"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["surgery", *(str(trained) if w == "RUN" else w for w in words)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.slow
def test_the_verb_prints_the_drop(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surgery", str(trained), "--pool=decimate"]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    before, after, drop = (float(v) for v in lines["accuracy"])
    assert drop == pytest.approx(after - before, abs=1.1e-4)


def test_columns_stand_below_their_heads_however_long_a_name() -> None:
    metrics = {"accuracy": 0.5, "calibration_error_scaled": 0.25, "test_images": 10}
    found = {"before": metrics, "after": metrics, "tuned": None, "fresh": [], "dropped": []}
    shown = lines(found)
    assert len(shown) == 3 and len({len(line) for line in shown}) == 1


def test_only_cuts_can_be_changed() -> None:
    with pytest.raises(ValueError, match="surgery"):
        changed(CONFIG, {"lr": 1.0})
    assert trial_id(changed(CONFIG, {"head": "gmp"})) != trial_id(CONFIG)


def test_transplant_keeps_order_and_values() -> None:
    trained = {"a": np.ones(2), "gone": np.ones(1)}
    template = {"a": np.zeros(2), "b": np.zeros(3)}
    arrays, fresh = transplant(trained, template, "pool=x")
    assert list(arrays) == ["a", "b"]
    assert fresh == ["b"]
    np.testing.assert_array_equal(arrays["a"], 1)

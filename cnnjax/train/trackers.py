"""TRACKERS: TensorBoard, Weights & Biases and MLflow as callbacks; none imports TensorFlow.

    watch = Several(trackers(["tensorboard", "mlflow"], out="runs/mine"))

Each is an optional package. What it keeps lies in the directory of the run, unless its own
environment variables name a server (WANDB_MODE, WANDB_PROJECT; MLFLOW_TRACKING_URI). One that
cannot start is the user's to mend; one that fails later costs a warning, never the training.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnjax import spec
from cnnjax.train.watch import Callback

PROJECT = "cnnjax"


class TensorBoard(Callback):
    """Scalars by step and the config as text, in OUT/tensorboard."""

    def __init__(self, out: Path) -> None:
        self._directory, self._step = out / "tensorboard", 0

    def start(self, run: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        # A run that goes on tells all its epochs again: curves of its own drawn twice mislead.
        for path in self._directory.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer = SummaryWriter(str(self._directory))
        self._writer.add_text("config", f"```\n{json.dumps(run['config'], indent=1)}\n```", 0)

    def epoch(self, line: Mapping[str, Any]) -> None:
        self._step = line["step"]
        self._write("train", curves(line))
        self._writer.flush()

    def end(self, result: Mapping[str, Any]) -> None:
        self._write("result", result.get("metrics", {}))
        self._writer.close()

    def _write(self, group: str, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{group}/{name}", value, self._step)


class WeightsAndBiases(Callback):
    """A run of the project $WANDB_PROJECT or cnnjax; with WANDB_MODE=offline in OUT/wandb alone."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def start(self, run: Mapping[str, Any]) -> None:
        import wandb

        place = hashlib.sha256(str(self._out.absolute()).encode()).hexdigest()[:8]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=f"{run['id']}-{place}",
            name=run["id"],
            config=dict(run["config"]),
            dir=str(self._out),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True),
        )

    def epoch(self, line: Mapping[str, Any]) -> None:
        numbers = {f"train/{name}": value for name, value in curves(line).items()}
        self._run.log(numbers, step=line["step"])

    def end(self, result: Mapping[str, Any]) -> None:
        self._run.summary.update({"status": result["status"], **result.get("metrics", {})})
        self._run.finish(exit_code=0 if result["status"] == "done" else 1)


class MLflow(Callback):
    """A run of the experiment cnnjax, at $MLFLOW_TRACKING_URI or in OUT/mlruns."""

    STATES: Mapping[str, str] = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}

    def __init__(self, out: Path) -> None:
        self._out, self._step = out.absolute(), -1

    def start(self, run: Mapping[str, Any]) -> None:
        # MLflow wants to be told that plain files are meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        here = (self._out / "mlruns").as_uri()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", here))
        experiment = self._experiment()
        tags = {"cnnjax.directory": str(self._out), "cnnjax.trial": run["id"]}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([experiment], query, max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            history = self._client.get_metric_history(self._id, "train/loss")
            self._step = max((metric.step for metric in history), default=-1)
            return
        self._id = self._client.create_run(experiment, tags=tags, run_name=run["id"]).info.run_id
        params = [Param(name, str(value)) for name, value in run["config"].items()]
        self._client.log_batch(self._id, params=params)

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(PROJECT)
        return found.experiment_id if found else self._client.create_experiment(PROJECT)

    def epoch(self, line: Mapping[str, Any]) -> None:
        if line["step"] <= self._step:
            return  # told again by a run that goes on
        self._step = line["step"]
        self._log("train", curves(line))

    def end(self, result: Mapping[str, Any]) -> None:
        self._log("result", result.get("metrics", {}))
        self._client.set_terminated(self._id, self.STATES[result["status"]])

    def _log(self, group: str, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._id, f"{group}/{name}", value, step=max(self._step, 0))


@dataclass(frozen=True)
class Tracker:
    """A row of TRACKERS: the package that it needs, and what opens it in a run's directory."""

    package: str
    open: Callable[[Path], Callback]


TRACKERS: Mapping[str, Tracker] = {
    "tensorboard": Tracker("tensorboardX", TensorBoard),
    "wandb": Tracker("wandb", WeightsAndBiases),
    "mlflow": Tracker("mlflow", MLflow),
}


class Guarded(Callback):
    """A tracker whose failure is one line: an OSError at the start, a warning and silence later."""

    def __init__(self, name: str, tracker: Callback) -> None:
        self._name, self._tracker, self._speaks = name, tracker, False

    def start(self, run: Mapping[str, Any]) -> None:
        try:
            self._tracker.start(run)
        except Exception as error:
            raise OSError(f"watch: {self._name} does not start: {_line(error)}") from error
        self._speaks = True

    def epoch(self, line: Mapping[str, Any]) -> None:
        self._tell(self._tracker.epoch, line)

    def end(self, result: Mapping[str, Any]) -> None:
        self._tell(self._tracker.end, result)

    def _tell(self, method: Callable[[Mapping[str, Any]], None], about: Mapping[str, Any]) -> None:
        if not self._speaks:
            return
        try:
            method(about)
        except Exception as error:
            self._speaks = False
            text = f"watch: {self._name} is lost, training goes on: {_line(error)}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)


def trackers(names: Iterable[str], out: str | os.PathLike[str]) -> list[Callback]:
    """Return the named trackers for a run in `out`; ValueError for an unknown or missing one."""
    found: list[Callback] = []
    for name in dict.fromkeys(names):
        card = spec.find(TRACKERS, name, "watch")
        try:
            importlib.import_module(card.package)
        except ImportError as error:
            raise ValueError(
                f"watch: {name} needs the package {card.package} ({_line(error)}); "
                f"pip install 'cnnjax[{name}]'"
            ) from None
        found.append(Guarded(name, card.open(Path(out))))
    return found


def curves(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what of an epoch's line is worth a curve."""
    speed = line["images"] / max(line["seconds"], 1e-9)
    return {
        "loss": line["loss"],
        "accuracy": line["accuracy"],
        "epoch": line["epoch"],
        "images_per_second": speed,
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

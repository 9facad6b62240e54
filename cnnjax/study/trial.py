"""One trial, from a Config to a number: load, build, train, measure.

    row = run(Config(pool="aps", stride=2))
    row["metrics"]["accuracy"], row["metrics"]["consistency"]

This is the story of the project, top to bottom; each line's detail is one file away.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from cnnjax import build, data
from cnnjax.config import SCHEMA, Config, to_dict, trial_id
from cnnjax.data import Dataset
from cnnjax.invariance.battery import battery
from cnnjax.invariance.exhaustive import has_dense_pass
from cnnjax.invariance.logits import shift_logits
from cnnjax.invariance.metrics import consistency
from cnnjax.study.environment import describe
from cnnjax.study.store import TrialFiles
from cnnjax.train.fit import Diverged, evaluate, fit
from cnnjax.train.step import TrainState, create_state, eval_step, train_step

EVAL_BATCH = 256

Report = Callable[[dict[str, Any]], None]


def ignore(line: Any) -> None:
    """Report to nobody."""


def run(config: Config, out_dir: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Train and measure one trial; return its row {id, status, config, metrics, places, ...}.

    With `out_dir` the trial's files are kept there, and a finished trial is returned as it stands;
    FileExistsError where the directory holds another one. Raises Diverged where the loss stops
    being finite.
    """
    if out_dir is None:
        return measure(config)
    files = TrialFiles(out_dir)
    finished = files.result()
    if finished is None:
        return run_in(files, config)
    if finished["id"] != trial_id(config):
        raise FileExistsError(f"{out_dir} holds another trial, {finished['id']}; choose a new one")
    return finished


def run_in(files: TrialFiles, config: Config, report: Report = ignore) -> dict[str, Any]:
    """Run a trial and keep its files; one that fails is finished too, with its reason."""
    files.start(to_dict(config), describe(threads=config.threads))

    def on_epoch(line: dict[str, Any]) -> None:
        files.log(line)
        report(line)

    try:
        result = measure(config, on_epoch, files.save_variables)
    except OSError:
        raise  # a full disk or a missing data file is not the trial's own failure
    except Exception as error:
        result = _header(config) | {"status": "failed", "reason": _reason(error)}
    files.finish(result)
    return result


def measure(config: Config, on_epoch: Report = ignore, keep: Report = ignore) -> dict[str, Any]:
    """Train the network of `config` and measure it; `keep` receives the trained variables."""
    start = time.perf_counter()
    limit_threads(config.threads)
    dataset = data.load(config.dataset, config.data_dir)
    net = build.build_net(config, dataset.num_classes, dataset.image_shape)
    state = train(config, net, dataset, on_epoch)
    trained = time.perf_counter()
    metrics, places = judge(config, net, state, dataset)
    arrays = flat(state.variables)
    keep(arrays)
    return _header(config) | {
        "status": "done",
        "metrics": metrics,
        "places": places,
        "data_sha256": dataset.checksum,
        "variables_sha256": fingerprint(arrays),
        "seconds_training": trained - start,
        "seconds": time.perf_counter() - start,
    }


def train(config: Config, net: nn.Module, dataset: Dataset, on_epoch: Report) -> TrainState:
    """Return the state after all epochs."""
    epochs = build.epochs(config)
    tx = build.build_optimizer(config, epochs * build.steps_per_epoch(config, dataset))
    create = jax.jit(lambda key: create_state(net, tx, key, dataset.image_shape))
    state = create(jax.random.key(config.seed))
    step = train_step(
        net,
        tx,
        transform=build.build_input(dataset),
        loss=build.build_loss(config),
        augment=build.build_augment(config, dataset),
    )
    return fit(
        jax.jit(step, donate_argnums=0),
        state,
        dataset.train,
        epochs=epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        on_epoch=on_epoch,
    )


def judge(
    config: Config, net: nn.Module, state: TrainState, dataset: Dataset
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return (metrics, places): the test set where it is, then moved to every place of the grid."""
    transform = build.build_input(dataset)
    step = jax.jit(eval_step(net, transform=transform, loss=build.build_loss(config)))
    test = evaluate(step, state.variables, dataset.test, batch_size=EVAL_BATCH)
    offsets = places(config, dataset)
    images, labels = (part[: config.shift_images] for part in dataset.test)
    forward: Any = net.apply
    logits = shift_logits(
        lambda variables, x: forward(variables, transform(x), train=False),
        images,
        shifts=offsets,
        boundary=dataset.boundary,
        variables=state.variables,
    )
    predictions = np.argmax(logits, axis=-1)
    by_place = np.mean(predictions == labels[:, None], axis=0)
    moved = np.any(offsets != 0, axis=1)
    metrics = {
        "accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "accuracy_away": float(np.mean(by_place[moved])),
        "consistency": float(consistency(predictions)),
        "test_images": test["images"],
        "shifted_images": len(labels),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }
    metrics |= invariance(config, net, state.variables, dataset)
    grid = {"offsets": offsets.tolist(), "accuracy": by_place.tolist()}
    return metrics, grid | {"boundary": dataset.boundary}


def invariance(
    config: Config, net: nn.Module, variables: Any, dataset: Dataset
) -> dict[str, float]:
    """Return the exact figures that `config.battery` asks for, over all H*W circular shifts."""
    if config.battery == "none":
        return {}
    images, labels = (part[: config.battery_images] for part in dataset.test)
    x = build.build_input(dataset)(jnp.asarray(images))
    if config.battery == "cheap" and not has_dense_pass(net, variables, x.shape):
        return {}
    return battery(net, variables, x, labels, level=config.battery)


def places(config: Config, dataset: Dataset) -> np.ndarray:
    """Return the test shifts (K, 2) in pixels, rows then columns: a square grid about (0, 0)."""
    reach = config.eval_shift or dataset.slack or max(dataset.image_shape[:2]) // 8
    side = np.rint(np.linspace(-reach, reach, config.eval_places)).astype(int)
    side = np.unique(np.append(side, 0))
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


def limit_threads(threads: int) -> None:
    """Give JAX's CPU backend this many threads; without effect once it has started."""
    os.environ["NPROC"] = str(threads)


def flat(variables: Any) -> dict[str, np.ndarray]:
    """Return a tree of variables as arrays by slash-separated path."""
    leaves = flatten_dict(jax.device_get(variables), sep="/")
    return {path: np.asarray(leaf) for path, leaf in sorted(leaves.items())}


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all variables' paths and bytes: equal fingerprints, equal networks."""
    digest = hashlib.sha256()
    for path, array in arrays.items():
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _header(config: Config) -> dict[str, Any]:
    return {"id": trial_id(config), "schema": SCHEMA, "config": to_dict(config)}


def _reason(error: Exception) -> str:
    if isinstance(error, Diverged):
        return f"diverged: {error}"
    return f"{type(error).__name__}: {error}".splitlines()[0]

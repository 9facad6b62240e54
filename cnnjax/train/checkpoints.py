"""Checkpoints: state and progress on disk, whole or not at all, by way of Orbax.

    with Checkpoints(directory, owner=identity(config), keep=3) as checkpoints:
        found = checkpoints.restore(state)           # (state, Progress) or None
        checkpoints.save(state, progress)            # returns while the disk still works

A checkpoint carries the SHA-256 of its own content, so that a flipped bit is noticed as a truncated
file is: such a one is set aside with a warning and the one before is used. The last `keep` are kept
and the one of lowest training loss. Only the first process writes; the others read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from cnnjax.train.parallel import host_copy, put_like
from cnnjax.train.progress import Progress, leaf_name

ASIDE = "damaged"


class CheckpointError(OSError):
    """A checkpoint cannot be written, or does not belong here."""


class Checkpoints:
    """The checkpoints of one run; `owner` (plain JSON) says which run that is."""

    def __init__(
        self, root: str | os.PathLike[str], *, owner: dict[str, Any], keep: int = 3
    ) -> None:
        self.root = Path(root).absolute()
        self._owner, self._keep = owner, keep
        self._open: Any = None

    def save(self, state: Any, progress: Progress) -> None:
        """Begin to write the state after `progress.step` steps; a second save is no new one.

        Raises CheckpointError where this or the one before cannot be written.
        """
        if jax.process_index() or progress.step in self._steps():
            return
        from orbax.checkpoint import args

        # A copy: the next step may reuse the memory while the disk is still at work.
        leaves = named_leaves(host_copy(state))
        about = {"owner": self._owner, "progress": progress.saved()}
        meta = {**about, "sha256": digest(leaves, about)}
        items = args.Composite(state=args.StandardSave(leaves), meta=args.JsonSave(meta))
        self._attempt(
            lambda: self._manager().save(
                progress.step, args=items, metrics={"loss": _latest_loss(progress)}
            )
        )

    def wait(self) -> None:
        """Return once everything is on disk; CheckpointError where that failed."""
        if self._open is not None:
            self._attempt(self._open.wait_until_finished)

    def restore(self, template: Any) -> tuple[Any, Progress] | None:
        """Return the latest (state, progress) that is whole; None where there is none.

        template: a state of this run, for structure, types and shardings. Raises CheckpointError,
        naming the leaf, where a whole checkpoint does not fit it, and for another run's.
        """
        for step in sorted(self._steps(), reverse=True):
            try:
                leaves, meta = self._read(step)
            except Exception as error:
                self._set_aside(step, error)
                continue
            self._check_owner(meta["owner"])
            return rebuilt(template, leaves, self.root / str(step)), Progress.restored(
                meta["progress"]
            )
        return None

    @property
    def last(self) -> int | None:
        """The step of the last checkpoint, None where there is none."""
        return max(self._steps(), default=None)

    def _read(self, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        from orbax.checkpoint import args

        items = args.Composite(state=args.StandardRestore(), meta=args.JsonRestore())
        with uninterrupted():
            found = self._manager().restore(step, args=items)
        leaves, meta = dict(found.state), dict(found.meta)
        expected = meta.pop("sha256")
        if digest(leaves, meta) != expected:
            raise ValueError("its content does not have the SHA-256 it was written with")
        return leaves, meta

    def _set_aside(self, step: int, error: Exception) -> None:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        warnings.warn(
            f"checkpoint {self.root / str(step)} is damaged ({reason}); set aside in {ASIDE}/, "
            "the one before is used",
            RuntimeWarning,
            stacklevel=3,
        )
        if jax.process_index() == 0:
            aside = self.root.parent / ASIDE
            aside.mkdir(exist_ok=True)
            place = next(p for i in range(10**6) if not (p := aside / f"{step}.{i}").exists())
            os.replace(self.root / str(step), place)
            self.close()

    def _check_owner(self, owner: dict[str, Any]) -> None:
        if owner == self._owner:
            return
        names = sorted(k for k in {*owner, *self._owner} if owner.get(k) != self._owner.get(k))
        raise CheckpointError(
            f"{self.root}: these checkpoints are another run's, with another "
            f"{', '.join(names)}; choose a new directory"
        )

    def _steps(self) -> list[int]:
        if self._open is not None:
            return list(self._open.all_steps())
        if not self.root.is_dir():
            return []  # Orbax is slow to import, and there is nothing for it to read
        return list(self._manager().all_steps())

    def _attempt(self, action: Any) -> None:
        try:
            with uninterrupted():
                action()
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{self.root}: a checkpoint could not be written ({reason}); "
                "older checkpoints are intact"
            ) from error

    def _manager(self) -> Any:
        if self._open is None:
            self._screen()
            with uninterrupted():
                self._open = _open_manager(self.root, self._keep)
        return self._open

    def _screen(self) -> None:
        # Orbax reads every checkpoint's metrics when it opens and would fail over one of them.
        for path in self.root.glob("*/metrics/metrics"):
            if not path.parts[-3].isdecimal():
                continue
            try:
                float(json.loads(path.read_bytes())["loss"])
            except (ValueError, TypeError, KeyError) as error:
                self._set_aside(int(path.parts[-3]), error)

    def close(self) -> None:
        """Wait for what is being written and let go of the directory."""
        if self._open is not None:
            manager, self._open = self._open, None
            self._attempt(manager.close)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            self.close()
        except CheckpointError:
            if error is None:  # else the first error is the one to tell
                raise


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block is through.

    Broken off in the middle, Orbax leaves threads behind that wait for ever, and the process with
    them. Other threads than the main one are not interrupted anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda signum, frame: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came.is_set():
            signal.raise_signal(signal.SIGINT)


def _open_manager(root: Path, keep: int) -> Any:
    from absl import logging
    from orbax import checkpoint as ocp

    # What goes wrong is raised as well; logged, it would be a traceback, even for Ctrl-C.
    logging.set_verbosity(logging.FATAL)
    policies = ocp.checkpoint_managers
    me = jax.process_index()
    root.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        best_fn=_loss,
        best_mode="min",
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(keep), policies.BestN(get_metric_fn=_loss, reverse=True, n=1)]
        ),
        create=False,
        cleanup_tmp_directories=me == 0,
        read_only=me != 0,
        # Every process holds the whole state: nobody needs to wait for anybody.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}
        ),
    )
    return ocp.CheckpointManager(root, options=options)


def _loss(metrics: dict[str, float]) -> float:
    return metrics["loss"]


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a tree by their slash-separated names."""
    return {leaf_name(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def digest(leaves: dict[str, np.ndarray], about: dict[str, Any]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all leaves, and of `about`."""
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, leaf in sorted(leaves.items()):
        total.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()


def rebuilt(template: Any, leaves: dict[str, np.ndarray], where: Path) -> Any:
    """Return the leaves in the structure of `template`; CheckpointError names one that differs."""
    expected = named_leaves(jax.tree.map(_abstract, template))
    for name in sorted({*expected, *leaves}):
        here, there = _say(expected.get(name)), _say(leaves.get(name))
        if here != there:
            raise CheckpointError(
                f"{where} is of another network or optimiser: {name} is {there}, expected {here}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, old: put_like(old, leaves[leaf_name(path)], old.sharding), template
    )


def _abstract(x: Any) -> Any:
    # A view of no memory: only type and shape are asked for.
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.eval_shape(jax.random.key_data, x)
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def _say(leaf: np.ndarray | None) -> str:
    return "absent" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def _latest_loss(progress: Progress) -> float:
    """Return the loss of the epoch at hand; of the one before where nothing of it is seen yet."""
    now = progress.means()
    return now["loss"] if now["images"] or not progress.lines else progress.lines[-1]["loss"]

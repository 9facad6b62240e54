"""Ray as far as the engine asks, in one process: a task goes on when its next news is asked for.

    ray = make(nodes=[{"CPU": 2.0}])       # to be put into sys.modules["ray"]

A task whose job has `deaths` starts and then raises one of those errors, one a try, as Ray does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock


class RayError(Exception):
    """Every error of Ray's."""


DEATHS = {
    name: type(name, (RayError,), {})
    for name in (
        "WorkerCrashedError",
        "NodeDiedError",
        "OutOfMemoryError",
        "ObjectLostError",
        "LocalRayletDiedError",
        "RuntimeEnvSetupError",
    )
}


@dataclass(frozen=True, eq=False)
class Task:
    """One call that was asked for; an iterator of references to what its function yields."""

    function: Any
    options: Mapping[str, Any]
    args: Sequence[Any]

    def __next__(self) -> Callable[[], Any]:
        return self._go_on

    def _go_on(self) -> Any:
        with mock.patch.dict(os.environ, self.options["runtime_env"]["env_vars"]):
            return next(self._news)

    @cached_property
    def _news(self) -> Iterator[Any]:
        """Run it as its worker would, or die after its start as its job's configuration says."""
        job = self.args[1]
        deaths = next(iter(job.trials.values())).get("deaths")
        stream = self.function(*self.args)
        yield next(stream)
        if deaths:
            death = deaths.pop(0)
            raise DEATHS[death](f"{death} of {job.name}\nand more")
        yield from stream


def make(nodes: Sequence[Mapping[str, float]]) -> Any:
    """Return the module; `.started` is what init was given, `.options` what each task was."""
    ray: Any = ModuleType("ray")
    ray.started, ray.options, ray.cancelled, ray.most = None, [], [], 0
    ray.exceptions = SimpleNamespace(RayError=RayError, **DEATHS)

    def init(**options: Any) -> None:
        ray.started = options

    def wait(refs: Sequence[Any], num_returns: int) -> Any:
        assert num_returns == 1
        ray.most = max(ray.most, len(refs))
        return list(refs[:1]), list(refs[1:])

    ray.init, ray.wait, ray.get = init, wait, lambda ref: ref()
    ray.is_initialized = lambda: ray.started is not None
    ray.nodes = lambda: [{"Alive": True, "Resources": node} for node in nodes]
    ray.cancel = lambda ref, force: ray.cancelled.append(ref.args[1].name)
    ray.shutdown = lambda: setattr(ray, "started", None)

    def submit(function: Any, options: Mapping[str, Any], args: Sequence[Any]) -> Any:
        ray.options.append(options)
        return Task(function, options, args)

    ray.remote = lambda **fixed: (
        lambda function: SimpleNamespace(
            options=lambda **options: SimpleNamespace(
                remote=lambda *args: submit(function, {**fixed, **options}, args)
            )
        )
    )
    return ray

"""The Ray engine against a made-up Ray: what it asks for, and what it makes of every death."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import fake_ray
import made_up
import pytest

from cnnjax.study.engines import ray as engine
from cnnjax.study.engines.interface import Event, Job, Resources

MakeJob = Callable[..., Job]
Tries = Callable[[str], int]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a made-up Ray of two nodes in place."""
    made = fake_ray.make([{"CPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}])
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return made


def run(jobs: list[Job], resources: Resources) -> list[Event]:
    return list(engine.run(jobs, made_up.work, resources))


def dying(job: Job, *deaths: str) -> Job:
    left = list(deaths)
    trials = {name: {**config, "deaths": left} for name, config in job.trials.items()}
    return Job(trials, job.threads)


def test_what_ray_is_asked_for(job: MakeJob, ray: Any) -> None:
    _, event = run([job("a", "done", threads=2)], Resources(gpus=0.5, cpus=0.25))
    (options,) = ray.options
    assert (options["num_cpus"], options["num_gpus"], options["max_retries"]) == (0.25, 0.5, 0)
    assert options["num_returns"] == "streaming"
    assert event.body["share"] == "0.450" and event.body["threads"] == "2"
    assert not ray.is_initialized()


def test_an_instance_of_its_own_is_private(
    job: MakeJob, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", seen.update)
    run([job("a", "done", threads=2)], Resources(workers=3))
    assert seen["address"] == "local" and seen["num_cpus"] == 6
    assert not seen["include_dashboard"] and not seen["log_to_driver"]


def test_no_more_than_asked_for_at_a_time(job: MakeJob, ray: Any) -> None:
    run([job(f"t{i}", "done") for i in range(7)], Resources(workers=2))
    assert ray.most == 2


def test_a_trial_is_said_to_run_while_it_runs(job: MakeJob, tries: Tries, ray: Any) -> None:
    events = engine.run([job("a,b", "done")], made_up.work, Resources())
    assert [(e.trial_id, e.kind) for e in (next(events), next(events))] == [
        ("a", "started"),
        ("b", "started"),
    ]
    assert not tries("a")
    assert [(e.trial_id, e.kind) for e in events] == [("a", "done"), ("b", "done")]


@pytest.mark.parametrize("death", ["WorkerCrashedError", "NodeDiedError", "OutOfMemoryError"])
def test_deaths_are_tried_again(job: MakeJob, ray: Any, death: str) -> None:
    events = run([dying(job("a", "done"), death, death), job("b", "done")], Resources())
    seen = [e for e in events if e.trial_id == "a"]
    assert [e.kind for e in seen] == ["started", "crashed"] * 2 + ["started", "done"]
    assert seen[1].body == f"its Ray worker died ({death}: {death} of a)"
    lost = run([dying(job("c", "done"), *[death] * 3)], Resources())
    assert [e.kind for e in lost[1::2]] == ["crashed", "crashed", "lost"]


def test_trials_of_one_job_are_tried_together_then_each_alone(job: MakeJob, ray: Any) -> None:
    events = run([dying(job("a,b", "done"), *["OutOfMemoryError"] * 3)], Resources())
    ends = [(event.trial_id, event.kind) for event in events if event.kind != "started"]
    assert ends == [*[("a", "crashed"), ("b", "crashed")] * 3, ("a", "done"), ("b", "done")]


@pytest.mark.parametrize(
    ("death", "error"),
    [("LocalRayletDiedError", ConnectionError), ("RuntimeEnvSetupError", RuntimeError)],
)
def test_what_another_try_cannot_help_ends_the_study(
    job: MakeJob, ray: Any, death: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        run([dying(job("a", "done"), death), job("b", "done")], Resources())
    assert "\n" not in str(caught.value)
    assert ray.cancelled == ["b"] and not ray.is_initialized()


def test_a_trial_too_large_for_every_node(job: MakeJob, ray: Any) -> None:
    says = r"takes 2 CPUs and 1 GPUs; no Ray node .*2 CPUs and 0 GPUs, 1 CPUs and 1 GPUs"
    with pytest.raises(ValueError, match=says):
        run([job("a", "done", threads=2)], Resources(gpus=1))


def test_a_cluster_that_was_there_is_left_running(job: MakeJob, ray: Any) -> None:
    ray.init(address="theirs")
    run([job("a", "done")], Resources(address="auto"))
    assert ray.started == {"address": "theirs"}


def test_options_of_another_engine_are_refused(job: MakeJob, ray: Any) -> None:
    with pytest.raises(ValueError, match="slurm: "):
        run([job("a", "done")], Resources(options={"partition": "gpu"}))

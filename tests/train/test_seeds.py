"""Several seeds as one program have the numbers of each alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cnnjax import build, data
from cnnjax.config import Config
from cnnjax.train.batches import feed
from cnnjax.train.parallel import make_plan
from cnnjax.train.progress import Diverged
from cnnjax.train.seeds import (
    first_states,
    fits_together,
    group,
    one_of,
    seeds_rows,
    seeds_step,
    train_seeds,
)
from cnnjax.train.training import build_step, first_state, train

# 20 steps, the 10th and the 20th of them short; everything that a seed draws.
CONFIG = Config(
    dataset="digits_canvas:side=12:scale=1:train=76:test=20",
    epochs=2,
    batch_size=8,
    widths=(2, 3),
    dense=(4,),
    norm="batch",
    dropout=0.3,
    pool="stochastic",
    head="gap",
    ema=0.9,
    optimizer="sgd",
    lr=0.05,
)
SEEDS = (0, 7, 3)
DATASET = data.load(CONFIG.dataset)
NET = build.build_net(CONFIG, DATASET.num_classes, DATASET.image_shape)


@pytest.fixture(autouse=True)
def quick_compilation() -> Iterator[None]:
    """Compile without most optimisations: the numbers are at stake here, not the speed."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def difference(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)


def timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "seconds"}


def doubled(tree: Any) -> Any:
    """Return the tree with its real arrays in float64."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


# A bias before a norm has a gradient of pure rounding, which Adam divides by its own size.
@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "norm"), [("adam", "none"), ("sgd", "batch")])
def test_20_steps_agree_in_float64(optimizer: str, norm: str) -> None:
    config = replace(CONFIG, optimizer=optimizer, norm=norm)
    net = build.build_net(config, DATASET.num_classes, DATASET.image_shape)
    plan, tx = make_plan(), build.build_optimizer(config, 20)
    with jax.enable_x64():
        together = doubled(first_states(config, net, DATASET, SEEDS))
        step = seeds_step(config, net, DATASET)
        for epoch in range(2):
            for rows, weight in seeds_rows(76, 8, SEEDS, epoch):
                together, _ = step(together, *DATASET.train, rows, weight)
        alone = jax.jit(build_step(config, plan, net, tx, DATASET))
        for index, seed in enumerate(SEEDS):
            state = doubled(first_state(replace(config, seed=seed), plan, net, tx, DATASET))
            for epoch in range(2):
                for batch in feed(DATASET.train, batch_size=8, seed=seed)(epoch, 0):
                    state, _ = alone(state, batch)
            assert state.params["stage0"]["conv"]["kernel"].dtype == jnp.float64
            assert difference(one_of(together.variables, index), state.variables) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [SEEDS[:2], pytest.param(SEEDS, marks=pytest.mark.slow)])
def test_training_agrees_in_float32(seeds: tuple[int, ...]) -> None:
    """SGD after 20 steps to 1e-5, and the lines of every epoch."""
    lines: list[list[Any]] = [[] for _ in seeds]
    outcomes: Any = train_seeds(
        CONFIG, NET, DATASET, seeds, lambda index, line: lines[index].append(timeless(line))
    )
    for index, seed in enumerate(seeds):
        own: list[Any] = []
        expected = train(replace(CONFIG, seed=seed), NET, DATASET, own.append)
        assert difference(outcomes[index], expected) < 1e-5
        assert [line["step"] for line in lines[index]] == [line["step"] for line in own]
        for found, line in zip(lines[index], own, strict=True):
            assert found["accuracy"] == line["accuracy"]
            assert found["loss"] == pytest.approx(line["loss"], rel=1e-5)
    assert difference(outcomes[0], outcomes[1]) > 1e-2


@pytest.mark.slow
def test_one_that_diverges_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle one starts at infinity."""
    from cnnjax.train import seeds

    def spoiled(*arguments: Any) -> Any:
        states = first_states(*arguments)
        return states.replace(params=jax.tree.map(lambda x: x.at[1].set(jnp.inf), states.params))

    config = replace(CONFIG, epochs=1)
    monkeypatch.setattr(seeds, "first_states", spoiled)
    told: list[int] = []
    outcomes: Any = train_seeds(config, NET, DATASET, SEEDS, lambda index, line: told.append(index))
    assert isinstance(outcomes[1], Diverged)
    assert "the loss is nan at step 1 (epoch 1)" in str(outcomes[1])
    assert told == [0, 2]
    assert all(jnp.isfinite(x).all() for i in (0, 2) for x in jax.tree.leaves(outcomes[i]))


@pytest.mark.parametrize(
    ("knob", "value"),
    [("devices", 2), ("unit", "epoch"), ("data_workers", 0), ("checkpoint_every", 3)],
)
def test_what_trains_alone_only_is_named(knob: str, value: Any) -> None:
    config = replace(CONFIG, **{knob: value})
    assert not fits_together(config)
    with pytest.raises(ValueError, match=f"^{knob}: expected .* to train several seeds at once"):
        train_seeds(config, NET, DATASET, SEEDS)


def test_groups_differ_in_the_seed_alone() -> None:
    arms = [replace(CONFIG, lr=lr, seed=seed) for seed in (0, 1) for lr in (0.1, 0.2)]
    apart = [replace(CONFIG, devices=2, seed=seed) for seed in (0, 1)]
    found = group([*arms, *apart])
    assert found == [[arms[0], arms[2]], [arms[1], arms[3]], [apart[0]], [apart[1]]]

"""Training as a Config says: network and data set -> trained variables.

variables = train(config, net, dataset, on_epoch=print)
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from cnnjax import build
from cnnjax.config import Config
from cnnjax.data import Dataset
from cnnjax.train.fit import Report, fit, ignore
from cnnjax.train.parallel import Plan, make_plan
from cnnjax.train.step import Method, TrainState, create_state, train_step


def train(
    config: Config, net: nn.Module, dataset: Dataset, on_epoch: Report = ignore
) -> dict[str, Any]:
    """Return the variables after all epochs; Diverged where a loss stops being finite.

    Raises ValueError where devices, batch size and microbatches do not go together.
    """
    plan = make_plan(config.parallel, config.devices)
    plan.check(batch_size=config.batch_size, microbatches=config.microbatches)
    steps = build.epochs(config) * build.steps_per_epoch(config, dataset)
    tx = build.build_optimizer(config, steps)
    state = fit(
        plan.compile(build_step(config, plan, net, tx, dataset)),
        first_state(config, plan, net, tx, dataset),
        dataset.train,
        epochs=build.epochs(config),
        batch_size=config.batch_size,
        seed=config.seed,
        on_epoch=on_epoch,
        place=plan.place,
        part=plan.rows(config.batch_size),
    )
    return plan.collect(state.variables)


def method(config: Config, plan: Plan) -> Method:
    """Return how a step of this config computes on this plan."""
    return Method(
        precision=config.precision,
        microbatches=config.microbatches,
        remat=config.remat == "pointwise",
        average=config.ema,
        axis_name=plan.axis_name,
        norm_scope=config.bn_scope,
    )


def build_step(config: Config, plan: Plan, net: nn.Module, tx: Any, dataset: Dataset) -> Any:
    """Return the step, not compiled."""
    return train_step(
        net,
        tx,
        transform=build.build_input(dataset),
        loss=build.build_loss(config),
        augment=build.build_augment(config, dataset),
        method=method(config, plan),
    )


def first_state(
    config: Config, plan: Plan, net: nn.Module, tx: Any, dataset: Dataset
) -> TrainState:
    """Return the state before the first step, on every device of the plan."""
    how = method(config, plan)
    create = jax.jit(lambda key: create_state(net, tx, key, dataset.image_shape, how))
    return plan.replicate(create(jax.random.key(config.seed)))

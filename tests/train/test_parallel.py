"""One step, spread over devices in three ways, gives the numbers of one device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import optimization
from cnnjax.layers.pooling import Pool
from cnnjax.ops import augmentation
from cnnjax.train.parallel import Plan, host_copy, make_plan
from cnnjax.train.step import Method, TrainState, create_state, train_step

SHAPE, ROWS = (6, 6, 1), 16
QUICK = [("pmap", 4), ("sharded", 8)]
REST = [("pmap", 1), ("pmap", 2), ("pmap", 8), ("sharded", 2), ("sharded", 4)]


class Net(nn.Module):
    """Convolution, batch norm, a pool by chance, dropout: all that could see how a batch lies."""

    pool: str = "stochastic"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(3, (3, 3), use_bias=False)(x)
        x = jax.nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = Pool(self.pool, window=2, stride=2)(x, train=train)
        x = nn.Dropout(0.25, broadcast_dims=(1,), deterministic=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(3)(x)


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optimization.LOSSES["cross_entropy"](logits, labels, 0.1)


def brighten(key: jax.Array, images: jax.Array) -> jax.Array:
    return images + jax.random.randint(key, (len(images), 1, 1, 1), 0, 9).astype(images.dtype)


def cut(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mix images across the whole batch, and so across devices."""
    return augmentation.cutmix(key, images, jax.nn.one_hot(labels, 3), alpha=1.0)


def batch(index: int, real: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(index)
    return {
        "image": rng.integers(0, 240, (ROWS, *SHAPE), np.uint8),
        "label": rng.integers(0, 3, ROWS, np.int32),
        "weight": (np.arange(ROWS) < real).astype(np.float32),
    }


class Run(NamedTuple):
    """What training left: the state after the first and the last step, its sums, the traces."""

    first: Any
    state: Any
    sums: Any
    traces: int


@pytest.fixture(autouse=True)
def quick_compilation() -> Iterator[None]:
    """Compile without most optimisations: the numbers are at stake here, not the speed."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def run(
    plan: Plan, *, optimizer: str = "adamw", dtype: Any = np.float64, pool: str = "stochastic",
    **method: Any,
) -> Run:  # fmt: skip
    """Train 20 steps on `plan`."""
    traces = []

    def transform(images: jax.Array) -> jax.Array:
        traces.append(1)
        return images.astype(dtype) / 255

    rate = optimization.schedule("cosine", 0.01, steps=20)
    tx = optimization.build(optimizer, rate, weight_decay=1e-3, clip_norm=1.0)
    how = Method(axis_name=plan.axis_name, **method)
    net = Net(pool)
    step = train_step(
        net, tx, transform=transform, loss=loss, augment=brighten, mix=cut, method=how
    )
    compiled = plan.compile(step)
    state = plan.replicate(start(net, tx, dtype))
    states: list[Any] = []
    for index in range(20):
        # Every third batch is short: 5 rows leave some devices with nothing but padding.
        state, sums = compiled(state, plan.place(batch(index, ROWS if index % 3 else 5)))
        states = [*states[:1], host_copy(state)]
    return Run(states[0], states[-1], host_copy(sums), len(traces))


VARIABLES: dict[Any, Any] = {}


def start(net: Net, tx: Any, dtype: Any) -> TrainState:
    """Return the state before the first step, its variables drawn once for all tests."""
    key = jax.random.key(0)
    if dtype not in VARIABLES:
        state = jax.jit(lambda: create_state(net, tx, key, SHAPE))()
        parts = host_copy((state.params, state.collections))
        VARIABLES[dtype] = jax.tree.map(lambda x: x.astype(dtype), parts)
    params, collections = VARIABLES[dtype]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        collections=collections,
        opt_state=tx.init(params),
        key=key,
    )


def difference(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(x.astype(float) - y))) for x, y in pairs)


ALONE: dict[str, Run] = {}


def alone(optimizer: str) -> Run:
    if optimizer not in ALONE:
        ALONE[optimizer] = run(make_plan(), optimizer=optimizer)
    return ALONE[optimizer]


def agrees(mode: str, count: int, optimizer: str, **method: Any) -> None:
    with jax.enable_x64():
        found, expected = (
            run(make_plan(mode, count), optimizer=optimizer, **method),
            alone(optimizer),
        )
    assert found.traces == 1
    assert difference(found.state, expected.state) < 1e-10
    assert difference(found.sums, expected.sums) < 1e-9
    assert found.sums["count"] == expected.sums["count"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "count"), [*QUICK, *(pytest.param(*plan, marks=pytest.mark.slow) for plan in REST)]
)
def test_20_steps_agree_in_float64(mode: str, count: int) -> None:
    agrees(mode, count, "adamw")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", sorted({*optimization.OPTIMIZERS} - {"adamw", "adam"}))
@pytest.mark.parametrize(("mode", "count"), [("sharded", 4), ("pmap", 8)])
def test_every_optimiser_agrees(mode: str, count: int, optimizer: str) -> None:
    agrees(mode, count, optimizer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "count"), [("sharded", 8), pytest.param("pmap", 4, marks=pytest.mark.slow)]
)
def test_float32_agrees(mode: str, count: int) -> None:
    """The first gradient (it starts SGD's momentum) to 1e-6; SGD after 20 steps to 1e-5."""
    plans = make_plan(), make_plan(mode, count)
    one, many = (run(p, optimizer="sgd", dtype=np.float32, pool="max") for p in plans)
    momentum = np.concatenate([x.ravel() for x in jax.tree.leaves(one.first.opt_state)])
    assert difference(one.first.opt_state, many.first.opt_state) < 1e-6 * np.linalg.norm(momentum)
    assert difference(one.state, many.state) < 1e-5


@pytest.mark.slow
def test_statistics_of_a_device_are_its_own() -> None:
    """With norm_scope "device" the network is another one, and still one on all devices."""
    with jax.enable_x64():
        state = run(make_plan("pmap", 2), norm_scope="device").state
        shared = alone("adamw").state
    assert difference(state.collections, shared.collections) > 1e-4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_rows_come_from_the_plan() -> None:
    assert make_plan("sharded", 8).rows(64) == slice(0, 64)
    assert make_plan(None, 0).mode == "sharded"
    assert len(make_plan(None, 0).devices) == len(jax.devices())
    assert make_plan().mode == "jit"


@pytest.mark.parametrize(
    ("mode", "devices", "message"),
    [
        (None, 9, r"devices: expected at most 8 \(cpu\), got 9"),
        ("jit", 2, "parallel: expected sharded or pmap for 2 devices"),
    ],
)
def test_plans_that_cannot_be(mode: str | None, devices: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(mode, devices)


def test_a_batch_that_does_not_divide() -> None:
    plan = make_plan("sharded", 8)
    plan.check(batch_size=64, microbatches=4)
    with pytest.raises(ValueError, match=r"batch_size: expected a multiple of 8 .* got 12; 8 is"):
        plan.check(batch_size=12)


def test_what_is_replicated_lies_on_the_devices() -> None:
    """Also on one: a data set is sent once, not with every epoch."""
    for plan in (make_plan(None, 1), make_plan("sharded", 2), make_plan("pmap", 2)):
        images = plan.replicate(np.zeros((4, 3), np.uint8))
        assert isinstance(images, jax.Array) and images.dtype == np.uint8

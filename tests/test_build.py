"""Config to objects: published choices, fused decimation, and networks that do not fit."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import build, data
from cnnjax.config import Config
from cnnjax.nets.blocks import ConvBlock, Downsampling

SHAPE = (12, 12, 1)


def small(**choices: object) -> Config:
    return Config(widths=(3, 4), dense=(), head="gap", **choices)  # type: ignore[arg-type]


def test_none_means_as_published() -> None:
    pool = build.downsampling(Config())
    assert (pool.method, pool.window, pool.stride, pool.padding) == ("max", 2, 2, "SAME")
    net = build.build_net(Config(net="lenet5_modern"), 10, (28, 28, 1))
    variables = jax.eval_shape(
        lambda x: net.init(jax.random.key(0), x), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    )
    kernels = [v["kernel"].shape for v in variables["params"].values() if "kernel" in v]
    assert kernels == [(400, 120), (120, 84), (84, 10)]


def test_equal_configs_build_equal_networks() -> None:
    nets = [build.build_net(small(pool="aps", padding="CIRCULAR"), 10, SHAPE) for _ in range(2)]
    assert nets[0] == nets[1]
    assert hash(nets[0]) == hash(nets[1])


@pytest.mark.parametrize("padding", ["SAME", "ZEROS", "CIRCULAR", "REFLECT", "EDGE", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 3)])
@pytest.mark.parametrize("size", [(12, 12), (11, 14)])
def test_decimation_after_a_convolution_is_a_strided_convolution(
    padding: str, stride: int | tuple[int, int], size: tuple[int, int]
) -> None:
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    pool = Downsampling("decimate", stride=stride)
    fused = ConvBlock(4, 3, padding, pool=pool)
    apart = ConvBlock(4, 3, padding, pool=dataclasses.replace(pool, position="after_activation"))
    assert pool.is_strided_convolution
    assert not apart.pool.is_strided_convolution  # type: ignore[union-attr]
    variables = fused.init(jax.random.key(1), x, train=False)
    y = fused.apply(variables, x, train=False)
    np.testing.assert_allclose(y, apart.apply(variables, x, train=False), atol=1e-6)
    assert y.shape == apart.apply(variables, x, train=False).shape  # type: ignore[union-attr]


def test_position_moves_the_pool() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2))
    outputs = []
    for position in ("after_conv", "after_activation"):
        block = ConvBlock(3, pool=Downsampling("mean", 2, 2, position=position))
        outputs.append(block.apply(block.init(jax.random.key(1), x, train=False), x, train=False))
    assert outputs[0].shape == outputs[1].shape
    assert not np.allclose(outputs[0], outputs[1])  # mean and rectifier do not commute


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"window": 13, "padding": "VALID"}, "window: .* larger than the map"),
        ({"pool": "max", "stride": 13}, "stride: .* larger than the map"),
        ({"pool": "aps", "stride": 5, "padding": "CIRCULAR"}, "stride: .* does not divide"),
        ({"padding": "VALID", "kernel_size": 13}, "larger than"),
        ({"eval_shift": 12}, "eval_shift: expected at most 11 pixels"),
        ({"train_shift": 99}, "train_shift: expected at most 11 pixels"),
    ],
)
def test_what_does_not_fit_is_named(choices: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build.build_net(small(**choices), 10, SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, True, None])
def test_numbers_of_classes_that_are_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match="num_classes: expected an int >= 1"):
        build.build_net(small(), wrong, SHAPE)
    with pytest.raises(ValueError, match="image_shape: expected"):
        build.build_net(small(), 10, (12, wrong, 1))


def test_input_scaling() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    plain = data.load("digits_canvas:train=20:test=10")
    unit = build.build_input(plain)(images).ravel()
    np.testing.assert_array_equal(unit, np.float32([0.0, 0.2, 1.0]))
    standard = dataclasses.replace(plain, standardize=True)
    x = build.build_input(standard)(standard.train.images)
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std()) - 1) < 1e-4


def test_augmentation_moves_by_at_most_the_reach() -> None:
    dataset = data.load("digits_canvas:train=20:test=10")
    assert build.build_augment(Config(train_shift=0), dataset) is None
    move = build.build_augment(Config(train_shift=2), dataset)
    images = dataset.train.images
    moved = np.asarray(move(jax.random.key(0), images))
    sums = images.sum(axis=(1, 2, 3), dtype=int)
    np.testing.assert_array_equal(moved.sum(axis=(1, 2, 3), dtype=int), sums)  # nothing is lost
    found = set()
    for before, after in zip(images, moved, strict=True):
        offsets = [
            (i, j)
            for i in range(-3, 4)
            for j in range(-3, 4)
            if np.array_equal(np.roll(before, (i, j), (0, 1)), after)
        ]
        assert len(offsets) == 1
        found.add(offsets[0])
    assert max(abs(v) for offset in found for v in offset) == 2
    assert len(found) > 5


def test_the_chain_of_augment_follows_the_move() -> None:
    dataset = data.load("digits_canvas:train=20:test=10")
    images, key = jnp.asarray(dataset.train.images), jax.random.key(3)
    moved = build.build_augment(Config(train_shift=2), dataset)(key, images)
    flipped = build.build_augment(Config(train_shift=2, augment="flip:chance=1.0"), dataset)
    np.testing.assert_array_equal(flipped(key, images), moved[:, :, ::-1])
    alone = build.build_augment(Config(train_shift=0, augment="flip:chance=1.0"), dataset)
    np.testing.assert_array_equal(alone(key, images), images[:, :, ::-1])


def test_only_mixing_rows_make_targets() -> None:
    dataset = data.load("digits_canvas:train=20:test=10")
    assert build.build_mix(Config(augment="flip+cutout"), dataset) is None
    mix = build.build_mix(Config(augment="flip+cutmix"), dataset)
    images, labels = map(jnp.asarray, dataset.train)
    mixed, targets = mix(jax.random.key(0), images, labels)
    assert mixed.shape == images.shape and mixed.dtype == jnp.uint8
    assert targets.shape == (20, 10)
    np.testing.assert_allclose(targets.sum(axis=-1), 1, rtol=1e-6)
    assert (targets[jnp.arange(20), labels] > 0).all()


@pytest.mark.parametrize("net", ["cnn", "lenet5_modern"])
def test_the_last_stage_may_have_a_pool_of_its_own(net: str) -> None:
    """The pool of every stage, as it stands in the network."""
    config = Config(net=net, pool="decimate", last_pool="lp:p=3", window=3, padding="CIRCULAR")
    built = build.build_net(config, 10, (24, 24, 1))
    pools: list[Any] = []

    def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, ConvBlock) and context.method_name == "__call__":
            pools.append(context.module.pool)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(built.init, jax.random.key(0), jnp.zeros((1, 24, 24, 1)))
    *before, last = pools
    assert {(pool.method, pool.stride) for pool in before} == {("decimate", 2)}
    assert (last.method, last.window, last.stride) == ("lp", 3, 2)
    assert (last.params, last.padding) == ({"p": 3}, "CIRCULAR")


def test_the_last_pool_of_networks_without_stages() -> None:
    with pytest.raises(ValueError, match="last_pool: net 'resnet20_cifar' takes none; allowed: "):
        build.build_net(Config(net="resnet20_cifar", last_pool="max"), 10, (32, 32, 3))


@pytest.mark.parametrize(
    ("last", "lattice"),
    [("max", 4), *(pytest.param(name, 2, marks=pytest.mark.slow) for name in ("max_blur", "blur"))],
)
def test_last_stage_theorem(last: str, lattice: int) -> None:
    """Blur at the last stage: logits repeat with the stride of the stages before it."""
    config = Config(
        widths=(2, 3), dense=(), head="gap", padding="CIRCULAR", pool="max", last_pool=last
    )
    net = build.build_net(config, 10, (8, 8, 1))
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    moved = np.concatenate([np.roll(x, shift, axis=1) for shift in range(9)])
    variables = jax.jit(net.init)(jax.random.key(1), x)
    logits = np.asarray(jax.jit(net.apply)(variables, moved))
    away = np.abs(logits - logits[0]).max(axis=1) / np.abs(logits).max()
    repeats = [shift for shift in range(1, 9) if away[shift] < 1e-5]
    assert repeats == list(range(lattice, 9, lattice))
    assert min(away[shift] for shift in range(1, 9) if shift not in repeats) > 1e-4

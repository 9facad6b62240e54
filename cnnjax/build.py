"""The one place that turns a Config into objects: network, optimiser, input transform.

    net = build_net(config, num_classes=10, image_shape=(36, 36, 1))
    tx = build_optimizer(config, steps=440)

Choices that Config leaves at None become what the network was published with here, and limits that
depend on the image's size are checked here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.core import FrozenDict

from cnnjax import optimization, spec
from cnnjax.config import Config
from cnnjax.data import DATASETS, Dataset
from cnnjax.data.recipe import Recipe
from cnnjax.layers import pooling
from cnnjax.nets import NETS, Network, fit
from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.stn import Transformed
from cnnjax.ops import augmentation, shifts

Shape = tuple[int, int, int]
# What only some networks let one choose.
OWN = ("widths", "kernel_size", "dense", "last_pool")


def build_net(config: Config, num_classes: int, image_shape: Shape) -> nn.Module:
    """Return the network of `config`; ValueError where it does not fit images of `image_shape`.

    The network is called net.apply(variables, x, train=False) with x (N, *image_shape) and gives
    logits (N, num_classes).
    """
    fit.check_shapes(num_classes, image_shape)
    card = NETS[config.net]
    choices = _choices(config, card)
    if config.last_pool is not None:
        choices["last_pool"] = downsampling(replace(config, pool=config.last_pool))
    net = card.module(num_classes=num_classes, pool=downsampling(config), **choices)
    if config.transformer != "none":
        net = Transformed(net=net, mode=config.transformer)
    check_fit(net, config, image_shape)
    return net


def _choices(config: Config, card: Network) -> dict[str, Any]:
    for name in OWN:
        if getattr(config, name) is not None and name not in card.defaults:
            able = ", ".join(key for key in card.defaults)
            raise ValueError(f"{name}: net {config.net!r} takes none; allowed: {able}")
    given = {name: getattr(config, name) for name in card.defaults}
    return {k: card.defaults[k] if value is None else value for k, value in given.items()}


def downsampling(config: Config) -> Downsampling:
    """Return the pool of `config`; what is None is each site's own, as published."""
    card = NETS[config.net]
    method, params = pooling.parse(config.pool) if config.pool else (None, {})
    chosen = Downsampling(
        method=None if method is None else method.name,
        window=config.window,
        stride=config.stride,
        padding=_choices(config, card)["padding"],
        params=FrozenDict(params),
        position=config.pool_position,
    )
    return chosen.at(card.pooling) if card.pooling.method else chosen


def check_fit(net: nn.Module, config: Config, image_shape: Shape) -> None:
    """Trace the network on one image without computing; name the config where it does not fit."""
    fit.check_shifts(config, image_shape)
    try:
        fit.check(net, image_shape, windows=config.window is not None)
    except ValueError as error:
        choices = ((name, getattr(config, name)) for name in ("pool", "window", "stride"))
        words = [config.net, *(f"{name}={value}" for name, value in choices if value is not None)]
        raise ValueError(f"{' '.join(words)} on {image_shape} images: {error}") from error


def steps_per_epoch(config: Config, dataset: Dataset) -> int:
    """Return the steps that show every training image once; the last batch may be short."""
    return -(-len(dataset.train.labels) // config.batch_size)


def epochs(config: Config) -> int:
    """Return the passes over the training images: the config's, else the data set's own."""
    return config.epochs or DATASETS[spec.parse(config.dataset)[0]].epochs


def build_optimizer(config: Config, steps: int) -> optax.GradientTransformation:
    """Return the optimiser with its schedule over `steps` updates."""
    rate = optimization.schedule(config.schedule, config.lr, steps=steps, warmup=config.warmup)
    return optimization.build(
        config.optimizer,
        rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )


def build_loss(config: Config) -> Any:
    """Return the loss (logits (N, K), labels (N,) or targets (N, K)) -> (N,)."""
    loss = optimization.LOSSES[config.loss]
    return lambda logits, labels: loss(logits, labels, config.label_smoothing)


def build_augment(config: Config, dataset: Dataset) -> Any:
    """Return the augmentation (key, images) -> images, or None for none.

    A random move by up to `train_shift`, then the rows of `augment` that change one image.
    """
    reach, chain = config.train_shift, augmentation.parse(config.augment)
    if reach == 0 and not chain:
        return None

    def change(key: jax.Array, images: jax.Array) -> jax.Array:
        if reach:
            offsets = jax.random.randint(key, (len(images), 2), -reach, reach + 1)
            images = shifts.move(images, offsets, dataset.boundary)
        return augmentation.augment(chain, jax.random.fold_in(key, 1), images)

    return change


def build_mix(config: Config, dataset: Dataset) -> Any:
    """Return the rows that mix images, (key, images, labels) -> (images, targets), or None."""
    chain = augmentation.parse(config.augment)
    if not augmentation.mixes(chain):
        return None

    def mix(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        targets = jax.nn.one_hot(labels, dataset.num_classes)
        return augmentation.mix(chain, key, images, targets)

    return mix


def build_input(dataset: Dataset | Recipe) -> Any:
    """Return images (..., H, W, C) uint8 -> float32 in [0, 1], standardised where the set asks."""
    if not dataset.standardize:
        return _to_unit
    moments = (jnp.asarray(v, jnp.float32) for v in (dataset.mean, dataset.std))
    mean, std = (moment.reshape(1, 1, 1, -1) for moment in moments)
    return lambda images: (_to_unit(images) - mean) / std


def _to_unit(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255.0

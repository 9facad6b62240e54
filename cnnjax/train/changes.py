"""What is changed in a batch before the network sees it: images augmented, then mixed.

batch = changed(batch, augment, mix, key, first=2, part=part)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.train.gradients import Batch
from cnnjax.train.parts import Part

Augment = Callable[[jax.Array, jax.Array], jax.Array]
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def changed(
    batch: Batch, augment: Augment | None, mix: Mix | None, key: Any, first: int, part: Part | None
) -> Batch:
    """Return the batch augmented and mixed, by the keys numbered `first` and `first` + 1.

    Where the batch is a part, as the rows of the whole one would be; None is the whole.
    """
    whole = part.whole if part else lambda draw, x: draw(x)
    if augment is not None:
        change = functools.partial(augment, jax.random.fold_in(key, first))
        batch = {**batch, "image": whole(change, batch["image"])}
    if mix is not None:
        blend = functools.partial(_mix_real_rows, mix, jax.random.fold_in(key, first + 1))
        mixed = whole(blend, (batch["image"], batch["label"], batch["weight"]))
        batch = {**batch, **dict(zip(("image", "target"), mixed, strict=True))}
    return batch


def _mix_real_rows(mix: Mix, key: jax.Array, rows: Any) -> Any:
    """Return `mix` of (images, labels, weights): padding, which ends a batch, is nobody's partner.

    In its place stand real rows.
    """
    images, labels, weight = rows
    index = jnp.arange(len(weight))
    index = jnp.where(weight > 0, index, index % jnp.maximum(jnp.sum(weight > 0), 1))
    return mix(key, images[index], labels[index])

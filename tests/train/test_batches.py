"""Every image exactly once an epoch, whatever the batch size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cnnjax.data import Split
from cnnjax.train.batches import batches, permutation


def split(count: int) -> Split:
    images = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return Split(images, np.arange(count, dtype=np.int32))


@given(st.integers(1, 70), st.integers(1, 80), st.integers(0, 5))
def test_every_image_once(count: int, batch_size: int, epoch: int) -> None:
    order = permutation(count, 3, epoch)
    found = list(batches(split(count), batch_size=batch_size, order=order))
    assert all(len(batch["label"]) == batch_size for batch in found)
    real = [label for b in found for label in b["label"][b["weight"] == 1]]
    assert real == order.tolist()
    assert all((b["image"].ravel() == b["label"]).all() for b in found)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {(s, e): tuple(permutation(50, s, e)) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(permutation(50, 1, 2))

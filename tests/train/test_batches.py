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


@given(st.integers(1, 70), st.sampled_from([4, 8, 12]), st.sampled_from([1, 2, 4]))
def test_parts_of_processes_make_up_the_global_batch(count: int, size: int, processes: int) -> None:
    order = permutation(count, 1, 1)
    share = size // processes
    parts = [
        list(
            batches(
                split(count), batch_size=size, order=order, part=slice(p * share, (p + 1) * share)
            )
        )
        for p in range(processes)
    ]
    whole = batches(split(count), batch_size=size, order=order)
    for batch, *own in zip(whole, *parts, strict=True):
        for name, value in batch.items():
            assert np.array_equal(value, np.concatenate([part[name] for part in own]))


@given(st.integers(1, 70), st.integers(1, 30), st.integers(0, 10))
def test_an_epoch_goes_on_at_any_batch(count: int, size: int, first: int) -> None:
    whole = list(batches(split(count), batch_size=size))[first:]
    rest = list(batches(split(count), batch_size=size, first=first))
    assert len(rest) == len(whole)
    assert all((a["label"] == b["label"]).all() for a, b in zip(rest, whole, strict=True))

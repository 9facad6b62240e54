"""The order in which trials start."""

from __future__ import annotations

from cnnjax.config import Config
from cnnjax.study.run import in_order


def test_every_program_once_before_its_repetitions_and_dear_trials_first():
    grid = [
        Config(pool="max", stride=stride, epochs=1, seed=seed)
        for stride in (3, 1, 2)
        for seed in (4, 0)
    ]
    order = [(c.stride, c.seed) for c in in_order(grid)]
    assert order == [(1, 4), (2, 4), (3, 4), (1, 0), (2, 0), (3, 0)]

"""Costs: counts that can be done by hand, and what remat is for."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from cnnjax import build, data
from cnnjax.cli.train import show_cost
from cnnjax.config import Config
from cnnjax.train.cost import cost

CONFIG = Config(
    dataset="digits_canvas:side=18:scale=1:train=40:test=20",
    widths=(4, 8),
    dense=(),
    head="gap",
    norm="batch",
    train_shift=0,
    optimizer="sgd",
)


@functools.cache
def costs(config: Config) -> dict[str, int]:
    dataset = data.load(config.dataset)
    return cost(config, build.build_net(config, 10, dataset.image_shape), dataset)


def test_counts_by_hand() -> None:
    found = costs(CONFIG)
    products = 18 * 18 * 9 * 4 + 9 * 9 * 9 * 4 * 8 + 8 * 10
    # Compilers leave out products with padding, and add norms, rectifiers and pools.
    assert found["forward_flops_per_image"] == pytest.approx(2 * products, rel=0.5)
    assert found["step_flops_per_image"] > 2 * found["forward_flops_per_image"]
    weights = 9 * 4 + 9 * 4 * 8 + 8 * 10 + 10
    assert weights <= found["parameters"] <= weights + 3 * (4 + 8)
    assert found["state_bytes"] >= 2 * 4 * weights


def test_memory_grows_with_the_batch() -> None:
    small, large = (costs(replace(CONFIG, batch_size=n))["step_memory_bytes"] for n in (32, 64))
    assert large > 1.5 * small


def test_remat_computes_no_product_again() -> None:
    plain, again = costs(CONFIG), costs(replace(CONFIG, remat="pointwise"))
    forward = plain["forward_flops_per_image"]
    more = again["step_flops_per_image"] - plain["step_flops_per_image"]
    assert 0 < more < 0.5 * forward


def test_microbatches_need_less_memory_for_the_same_operations() -> None:
    whole, parts = costs(CONFIG), costs(replace(CONFIG, microbatches=8))
    assert parts["step_flops_per_image"] == whole["step_flops_per_image"]
    assert parts["step_memory_bytes"] < whole["step_memory_bytes"]


def test_the_verb_prints_a_line_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_cost(CONFIG) == 0
    table, totals = capsys.readouterr().out.split("\n\n")
    lines = {line.split()[0]: line.split() for line in table.splitlines()}
    assert lines["stage0/conv"] == [
        *("stage0/conv", "Conv", "18x18x4", "40", f"{2 * 18 * 18 * 9 * 4:,}"),
        *(f"{4 * 18 * 18 * 4:,}", "3", "1", "0"),
    ]
    assert lines["stage1/pool"][-3:] == ["10", "4", "1.5"]
    assert lines["logits"][-1] == "global"
    products = 18 * 18 * 9 * 4 + 9 * 9 * 9 * 4 * 8 + 8 * 10
    assert lines["total"][2] == f"{2 * products:,}"
    assert lines["total"][1] == totals.split()[1]

"""With a warm compile cache the first step is there 1.5 s after the imports.

scripts/test -m slow -s tests/train/test_first_step.py prints the seconds, cold and warm
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, time
import jax
from cnnjax import build, data
from cnnjax.config import Config
from cnnjax.study.compilation import use_cache
from cnnjax.train.batches import feed
from cnnjax.train.parallel import make_plan
from cnnjax.train.training import build_step, first_state

start = time.perf_counter()
use_cache()
config = Config(net=sys.argv[1], padding="SAME", batch_size=128, dataset="shapes:n=256")
dataset = data.load(config.dataset)
net = build.build_net(config, dataset.num_classes, dataset.image_shape)
plan, tx = make_plan(), build.build_optimizer(config, 2)
step = plan.compile(build_step(config, plan, net, tx, dataset))
state = first_state(config, plan, net, tx, dataset)
batches = feed(dataset.train, batch_size=config.batch_size, seed=config.seed)(0, 0)
state, sums = step(state, plan.place(next(batches)))
jax.block_until_ready(state)
print(time.perf_counter() - start)
"""


def first_step(net: str, cache: Path) -> float:
    """Return the seconds from the imports to the end of the first step, in a fresh process."""
    env = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    words = [sys.executable, "-c", CODE, net]
    done = subprocess.run(
        words, env={**env, "CNNJAX_CACHE": str(cache)}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("net", ["cnn", "lenet5_modern"])
def test_the_first_step_comes_soon(net: str, tmp_path: Path) -> None:
    cold, *warm = (first_step(net, tmp_path) for _ in range(4))
    print(f"\n{net}: cold {cold:.2f} s, warm {min(warm):.2f} to {max(warm):.2f} s")
    assert min(warm) < 1.5

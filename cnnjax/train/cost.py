"""What a training step costs: parameters, operations and memory, read off the compiled program.

for name, value in cost(config, net, dataset).items(): ...
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax import build
from cnnjax.config import Config
from cnnjax.data import Dataset
from cnnjax.train.parallel import make_plan
from cnnjax.train.step import eval_step
from cnnjax.train.training import build_step, creation


def cost(config: Config, net: nn.Module, dataset: Dataset) -> dict[str, int]:
    """Return the costs of one device by name; nothing is run.

    Operations are the compiler's count (a multiplication and an addition are two) and memory is in
    bytes: step_memory is what a step needs beside the state, its activations above all.
    """
    plan = make_plan(None, 1)
    tx = build.build_optimizer(config, 1)
    state = jax.eval_shape(creation(config, plan, net, tx, dataset), jax.random.key(0))
    rows = config.batch_size
    batch = {
        "image": jax.ShapeDtypeStruct((rows, *dataset.image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((rows,), np.int32),
        "weight": jax.ShapeDtypeStruct((rows,), np.float32),
    }

    def step(config: Config) -> Any:
        step = plan.compile(build_step(config, plan, net, tx, dataset))
        return step.lower(state, batch).compile()

    whole = step(config)
    # The compiler counts the body of a loop over microbatches once.
    at_once = whole if config.microbatches == 1 else step(replace(config, microbatches=1))
    judge = eval_step(net, transform=build.build_input(dataset), loss=build.build_loss(config))
    forward = jax.jit(judge).lower(state.variables, batch).compile()
    return {
        "parameters": sum(int(leaf.size) for leaf in jax.tree.leaves(state.params)),
        "state_bytes": _bytes((state.params, state.collections, state.opt_state, state.average)),
        "forward_flops_per_image": int(_flops(forward) / rows),
        "step_flops_per_image": int(_flops(at_once) / rows),
        "step_memory_bytes": _memory(whole),
    }


def _flops(program: Any) -> float:
    return float((program.cost_analysis() or {}).get("flops", 0.0))


def _memory(program: Any) -> int:
    return int(program.memory_analysis().temp_size_in_bytes)


def _bytes(tree: Any) -> int:
    return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

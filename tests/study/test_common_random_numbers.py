"""Within a seed arms share initial values, the order of batches and every draw of augmentation.

Linen folds a parameter's key from the path of its module, so a pool with parameters of its own must
not rename what comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cnnjax import build, data
from cnnjax.config import Config
from cnnjax.layers.pooling import POOLS
from cnnjax.nets import NETS
from cnnjax.train.training import train

BASE: Mapping[str, Any] = {
    "net": "cnn",
    "widths": (2, 3),
    "dense": (5,),
    "padding": "CIRCULAR",
    "head": "gap",
    "pool": "max",
    "stride": 2,
    "window": 3,
}
ARMS: list[dict[str, Any]] = [
    {"stride": 3},
    {"pool": "decimate"},
    {"pool": "lps"},
    {"pool": "lenet_subsample", "norm": "batch"},
    {"head": "attention"},
    {"widths": (2, 6)},
]
MORE: list[dict[str, Any]] = [
    {"stride": 1},
    {"pool": "lp:learn=true"},
    *({"norm": norm} for norm in ("layer", "group", "response")),
    *({"head": head} for head in ("flatten", "gem")),
    {"dense": (5, 4)},
    {"dropout": 0.3},
    {"pool_position": "after_conv"},
    {"padding": "REFLECT", "pool": "blur"},
]
Parameters = dict[str, Any]


def initial(config: Config, shape: tuple[int, int, int] = (12, 12, 1)) -> Parameters:
    """Return the initial parameters by path, drawn as training draws them."""
    net = build.build_net(config, 10, shape)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    image = np.zeros((1, *shape), np.float32)
    return flatten_dict(net.init(key, image, train=False)["params"], sep="/")


def shared(a: Parameters, b: Parameters) -> list[str]:
    return [path for path in a if path in b and a[path].shape == b[path].shape]


@pytest.fixture(scope="module")
def reference() -> Parameters:
    return initial(Config(**BASE))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm", [*ARMS, *(pytest.param(arm, marks=pytest.mark.long) for arm in MORE)], ids=str
)
def test_arms_share_initial_values(reference: Parameters, arm: dict[str, Any]) -> None:
    own = initial(Config(**{**BASE, **arm}))
    same = shared(reference, own)
    # Only what the arm itself resizes may fall out: all the rest keeps its name.
    resized = {"widths": 3, "head": 1, "dense": 1}.get(next(iter(arm)), 0)
    assert len([path for path in same if "kernel" in path]) >= 4 - resized
    assert all(np.array_equal(reference[path], own[path]) for path in same)


def test_another_seed_shares_nothing_that_is_drawn(reference: Parameters) -> None:
    other = initial(Config(**BASE, seed=1))
    kernels = [path for path in reference if path.endswith("kernel")]
    assert not any(np.array_equal(reference[path], other[path]) for path in kernels)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_shares_initial_values(reference: Parameters, pool: str) -> None:
    spec = "canonical:method=max" if pool == "canonical" else pool
    own = initial(Config(**{**BASE, "pool": spec}))
    same = shared(reference, own)
    # Four channels out of one change the shape of the kernels after it.
    assert same == list(reference) or pool == "space_to_depth"
    assert all(np.array_equal(reference[path], own[path]) for path in same)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("net", ["resnet18", "vgg11", "all_cnn_c", "lenet5"])
def test_deep_networks_share_initial_values(net: str) -> None:
    size = max(32, NETS[net].image[0] if net == "lenet5" else 32)
    shape = (size, size, NETS[net].image[2])
    arms = [
        Config(net=net, pool=pool, padding="CIRCULAR", head="gap", norm=norm)
        for pool, norm in (("max", "batch"), ("lps", "batch"), ("lenet_subsample", "none"))
    ]
    first, *others = [initial(arm, shape) for arm in arms]
    for other in others:
        same = [path for path in shared(first, other) if path.endswith("kernel")]
        assert len(same) == len([path for path in first if path.endswith("kernel")])
        assert all(np.array_equal(first[path], other[path]) for path in same)


def seen_in_training(config: Config, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Return the batches that a network sees, augmented, in the order of its steps."""
    images: list[np.ndarray] = []
    unit: Callable[[Any], Any] = build._to_unit

    def watched(batch: jax.Array) -> jax.Array:
        jax.debug.callback(lambda seen: images.append(np.asarray(seen)), batch, ordered=True)
        return unit(batch)

    monkeypatch.setattr(build, "build_input", lambda dataset: watched)
    dataset = data.load(config.dataset)
    net: nn.Module = build.build_net(config, dataset.num_classes, dataset.image_shape)
    train(config, net, dataset)
    jax.effects_barrier()
    return images


@pytest.mark.slow
def test_arms_see_the_same_batches_moved_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {**BASE, "dataset": "digits_canvas:side=18:scale=1:train=20:test=10"}
    tiny |= {"epochs": 2, "batch_size": 8, "train_shift": 2}
    tiny |= {"augment": "rotate+cutout:size=4+mixup"}
    changes: list[dict[str, Any]] = [
        {},
        {"pool": "lps", "stride": 3, "norm": "batch", "widths": (3, 4)},
        {"pool": "stochastic", "dropout": 0.5, "head": "flatten", "padding": None},
    ]
    seen = [seen_in_training(Config(**{**tiny, **change}), monkeypatch) for change in changes]
    assert len(seen[0]) == 6
    for other in seen[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(seen[0], other, strict=True))
    another = seen_in_training(Config(**tiny, seed=1), monkeypatch)
    assert not any(np.array_equal(a, b) for a, b in zip(seen[0], another, strict=True))

"""cnnjax: what pooling and stride do to a convolutional network's spatial invariance.

    import cnnjax

    y = cnnjax.pool(x, "aps", stride=3, padding="CIRCULAR")
    row = cnnjax.run(cnnjax.Config(pool="max_blur", stride=2))

This is the contents page. Names are imported on first use, so that `import cnnjax` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnjax import results as results
    from cnnjax.build import build_net as build_net
    from cnnjax.compiling import steady_jit as steady_jit
    from cnnjax.config import Config as Config
    from cnnjax.data import DATASETS as DATASETS
    from cnnjax.invariance.certificate import Certificate as Certificate
    from cnnjax.invariance.certificate import certify as certify
    from cnnjax.invariance.exhaustive import exhaustive_logits as exhaustive_logits
    from cnnjax.invariance.logits import shift_logits as shift_logits
    from cnnjax.invariance.metrics import consistency as consistency
    from cnnjax.layers.conv import Conv as Conv
    from cnnjax.layers.pooling import HEADS as HEADS
    from cnnjax.layers.pooling import POOLS as POOLS
    from cnnjax.layers.pooling import Pool as Pool
    from cnnjax.layers.pooling import pool as pool
    from cnnjax.layers.pooling import unpool as unpool
    from cnnjax.nets import NETS as NETS
    from cnnjax.ops.conv import conv as conv
    from cnnjax.study.trial import run as run

_HOMES = {
    "Certificate": "cnnjax.invariance.certificate",
    "Config": "cnnjax.config",
    "Conv": "cnnjax.layers.conv",
    "DATASETS": "cnnjax.data",
    "HEADS": "cnnjax.layers.pooling",
    "NETS": "cnnjax.nets",
    "POOLS": "cnnjax.layers.pooling",
    "Pool": "cnnjax.layers.pooling",
    "build_net": "cnnjax.build",
    "certify": "cnnjax.invariance.certificate",
    "consistency": "cnnjax.invariance.metrics",
    "conv": "cnnjax.ops.conv",
    "exhaustive_logits": "cnnjax.invariance.exhaustive",
    "pool": "cnnjax.layers.pooling",
    "run": "cnnjax.study.trial",
    "shift_logits": "cnnjax.invariance.logits",
    "steady_jit": "cnnjax.compiling",
    "unpool": "cnnjax.layers.pooling",
}

_MODULES = ("results",)

__all__ = sorted((*_HOMES, *_MODULES))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"cnnjax.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'cnnjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

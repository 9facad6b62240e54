"""Config: every knob of one trial, once; flags, help, choices and result columns derive from it.

    config = Config(pool="max_blur", stride=2, seed=1)
    trial_id(config)                          # names the trial's directory

None means "as published" for the network's choices and "the data set's own" for the epochs.
Size limits (a window larger than a map) depend on the network and are checked by `build`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cnnjax import knobs, spec
from cnnjax.knobs import LARGEST, LONGEST, MOST_IMAGES, Kind, choice, integer, knob, real
from cnnjax.layers import pooling
from cnnjax.layers.activations import ACTIVATIONS, INITIALIZERS
from cnnjax.nets import NETS
from cnnjax.nets.blocks import NORMS, POSITIONS
from cnnjax.nets.stn import TRANSFORMERS
from cnnjax.ops import padding as pads
from cnnjax.optimization import LOSSES, OPTIMIZERS, SCHEDULES

# Part of every trial id: raise it when a change makes old results mean something else.
SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """One trial: what is trained on what, how, and how its invariance is measured."""

    net: str = knob("cnn", choice(NETS), "network")
    pool: str | None = knob(None, knobs.POOL, "pooling method, a row of POOLS")
    last_pool: str | None = knob(
        None, knobs.POOL, "pooling method of the last stage alone, where the network takes one"
    )
    window: int | pads.Pair | None = knob(None, knobs.PAIR, "pooling window in pixels")
    stride: int | pads.Pair | None = knob(None, knobs.PAIR, "pooling stride in pixels")
    pool_position: str | None = knob(
        None, choice(POSITIONS), "where the pool sits in a stage (default: the method's own place)"
    )
    padding: str | None = knob(None, choice(pads.PADDINGS), "padding of convolutions and pools")
    head: str | None = knob(None, knobs.HEAD, "what turns the last feature map into a vector")
    norm: str | None = knob(None, choice(NORMS), "normalisation after each convolution")
    activation: str | None = knob(None, choice(ACTIVATIONS), "rectifier")
    initializer: str | None = knob(
        None, choice(INITIALIZERS), "how weights start (default: as published)"
    )
    transformer: str = knob(
        "none", choice(TRANSFORMERS), "spatial transformer in front of the network"
    )
    widths: tuple[int, ...] | None = knob(None, knobs.WIDTHS, "channels of each stage")
    kernel_size: int | pads.Pair | None = knob(None, knobs.PAIR, "convolution kernel in pixels")
    dense: tuple[int, ...] | None = knob(
        None, knobs.WIDTHS, "units of the hidden full connections; empty for none"
    )
    dropout: float | None = knob(
        None, real(0.0, 0.99), "dropout rate after each hidden full connection"
    )
    dataset: str = knob("digits_canvas", knobs.DATASET, "data set, a row of DATASETS")
    data_dir: str | None = knob(
        None, knobs.TEXT, "directory of the data files (default: $CNNJAX_DATA)", identity=False
    )
    train_shift: int = knob(
        2, integer(0, LONGEST), "training images are moved at random by up to this many pixels"
    )
    augment: str = knob(
        "",
        knobs.AUGMENT,
        "what is done to training images after that: rows of AUGMENTATIONS and MIXINGS",
    )
    epochs: int | None = knob(None, integer(1, 10**6), "passes over the training images")
    batch_size: int = knob(64, integer(1, MOST_IMAGES), "images a step")
    loss: str = knob("cross_entropy", choice(LOSSES), "training loss")
    label_smoothing: float = knob(0.0, real(0.0, 0.99), "label smoothing of the cross-entropy")
    optimizer: str = knob("adam", choice(OPTIMIZERS), "optimiser")
    lr: float = knob(0.003, real(0.0, LARGEST), "peak learning rate")
    momentum: float = knob(0.9, real(0.0, 0.9999), "momentum of sgd, nesterov, muon and rmsprop")
    weight_decay: float = knob(
        0.0, real(0.0, LARGEST), "weight decay on kernels, not on biases or norms"
    )
    schedule: str = knob("cosine", choice(SCHEDULES), "learning rate over the steps")
    warmup: float = knob(0.05, real(0.0, 1.0), "share of the steps that warm the rate up")
    clip_norm: float | None = knob(None, real(1e-9, LARGEST), "largest global norm of a gradient")
    eval_shift: int | None = knob(
        None, integer(1, LONGEST), "farthest test shift in pixels (default: the data set's own)"
    )
    eval_places: int = knob(
        7, integer(2, LONGEST), "test shifts a side: 7 means a grid of 7 x 7 places"
    )
    shift_images: int = knob(1000, integer(1), "most test images moved to every place")
    battery: str = knob(
        "cheap",
        choice(("none", "cheap", "full")),
        "exact figures: cheap has all circular shifts where one dense pass can, full has them in "
        "any case, and other shift families, aliasing and gain",
    )
    measure: str = knob(
        "none",
        choice(("none", "negative", "orbit")),
        "what else is measured: negative has grey reversed, orbit counts logits over all shifts",
    )
    seed: int = knob(0, integer(0, 2**31 - 1), "seed of parameters, batches and augmentation")
    threads: int = knob(1, integer(1, 1024), "CPU threads of the trial")
    precision: str = knob(
        "f32", choice(("f32", "bf16", "f16")), "type of the forward and backward pass"
    )
    microbatches: int = knob(1, integer(1), "parts of a batch computed one after another")
    ema: float = knob(0.0, real(0.0, 0.999999), "decay of the parameters' moving average, 0: none")
    bn_scope: str = knob(
        "global", choice(("global", "device")), "images whose statistics batch norm takes"
    )
    devices: int | None = knob(
        None,
        integer(0),
        "devices of the trial, 0 for all (default: one; all where several processes run)",
        identity=False,
    )
    parallel: str | None = knob(
        None,
        choice(("jit", "sharded", "pmap")),
        "how a step runs on them (default: jit on one, sharded on more)",
        identity=False,
    )
    remat: str = knob(
        "none",
        choice(("none", "pointwise")),
        "what the backward pass computes again: pointwise is all but convolutions and products; "
        "`cnnjax train --cost` says whether it saves memory",
        identity=False,
    )
    unit: str | None = knob(
        None,
        choice(("step", "epoch")),
        "what is one dispatch (default: a step, 20 where an accelerator gains: docs/training.md)",
        identity=False,
    )
    data_workers: int | None = knob(
        None,
        integer(0, 1024),
        "processes that read the images through Grain, 0 for threads (default: from memory)",
        identity=False,
    )
    checkpoint_every: int | None = knob(
        None, integer(1), "steps between checkpoints (default: none)", identity=False
    )
    checkpoint_keep: int = knob(
        3, integer(1), "last checkpoints kept, and the best", identity=False
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            kind: Kind = field.metadata["kind"]
            object.__setattr__(self, field.name, kind.check(field.name, value))
        if not self.takes_window:
            # A method without a window is one arm, whatever window its neighbours in a sweep have.
            object.__setattr__(self, "window", None)
        if self.bn_scope == "device" and self.parallel != "pmap":
            raise ValueError(
                f"bn_scope: 'device' needs parallel='pmap', got parallel={self.parallel!r}"
            )
        if self.unit == "epoch" and self.data_workers is not None:
            raise ValueError("unit: expected 'step' with data_workers, got 'epoch'")

    @property
    def takes_window(self) -> bool:
        """False where no chosen pooling method has a window."""
        methods = [self.pool, self.last_pool or self.pool]
        return any(m is None or "window" in pooling.parse(m)[0].takes for m in methods)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def read(name: str, text: str) -> Any:
    """Read the value of field `name` from flag text.

    `default` is None where None is allowed, and so is `none` unless it is a name of the field's
    own: --norm=none takes a network's normalisation away, --norm=default leaves it as published.
    """
    field = FIELDS[name]
    kind: Kind = field.metadata["kind"]
    unset = ["default"] if "none" in kind.metavar.split("|") else ["default", "none"]
    if field.default is None and text.lower() in unset:
        return None
    try:
        value = kind.read(text)
    except ValueError:
        raise ValueError(f"{name}: expected {kind.metavar}, got {text!r}") from None
    return kind.check(name, value)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the fields by name, tuples as lists, ready for JSON."""
    values = ((name, getattr(config, name)) for name in FIELDS)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values}


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of `to_dict`; an unknown field raises ValueError with the nearest names."""
    for name in values:
        spec.find(FIELDS, name, "config")
    fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Config(**fields)


def identity(config: Config) -> dict[str, Any]:
    """Return what names a trial: the fields that differ from their defaults, machine paths aside.

    A field added later keeps its default here, so that it orphans no finished trial.
    """
    return {
        name: value
        for name, value in to_dict(config).items()
        if FIELDS[name].metadata["identity"] and getattr(config, name) != FIELDS[name].default
    }


def trial_id(config: Config) -> str:
    """Return the trial's name: 12 hexadecimal digits of a hash of schema and identity."""
    canonical = json.dumps([SCHEMA, identity(config)], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]

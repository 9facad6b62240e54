"""Striving for simplicity (Springenberg et al. 2015): x (N, 32, 32, 3) -> logits (N, num_classes).

    net = Springenberg(num_classes=10, model="C", variant="all")        # All-CNN-C, 1,369,738

| model | a stage of the base network | | variant | after the base's convolutions |
|---|---|---|---|---|
| A | 5x5 | | base | a 3/2 maximum |
| B | 5x5, 1x1 | | strided | none: the last one has stride 2 |
| C | 3x3, 3x3 | | convpool | a 3x3 convolution, then a 3/2 maximum |
| | | | all | a 3x3 convolution of stride 2 |

Two stages of 96 and 192, then 3x3 and 1x1 of 192, then 1x1 of num_classes with a rectifier, as the
table prints it, and the mean over all places. The 3 x 3 of the last stage has no border: its map is
6 x 6. A head that gives other than num_classes values is followed by a full connection. Dropout 0.2
on the image and 0.5 after each pool. The paper prints no initial weights; they start as He et al.
2015 say.

The parameters follow from the layers of tables 1 and 2: in millions 0.84 (A, with its strided
form), 1.25 (A's other two), 0.89, 1.30 (B), 0.95, 1.37 (C). Table 3 prints about 0.9, 1.28, 1,
1.35, 1.3 and 1.4, which its own layers give in the last case alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax

from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.card import Network, network
from cnnjax.nets.classifier import Classifier

STAGES = {"A": (5,), "B": (5, 1), "C": (3, 3)}
VARIANTS = ("base", "strided", "convpool", "all")
STRIDED = Downsampling("decimate", stride=2, padding="ZEROS")
MAX = Downsampling("max", 3, 2, "SAME")


class Springenberg(Classifier, kw_only=True):
    """The base networks A, B, C and what replaces their pooling."""

    model: str = "C"
    variant: str = "all"
    widths: tuple[int, ...] = (96, 192)
    head: str = "gap"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = self.drop(x, 0.2, train=train)
        kernels = STAGES[self.model] + ((3,) if self.variant in ("convpool", "all") else ())
        pool = MAX if self.variant in ("base", "convpool") else STRIDED
        layer = functools.partial(self.block, train=train)
        for stage, width in enumerate(self.sizes("widths", 2)):
            for index, kernel in enumerate(kernels):
                last = index == len(kernels) - 1
                name = f"stage{stage}_conv{index}"
                x = layer(x, width, kernel, pool=pool if last else None, name=name)
            x = self.drop(x, 0.5, train=train)
        x = layer(x, self.widths[-1], 3, padding="VALID", name="last_conv0")
        x = layer(x, self.widths[-1], 1, name="last_conv1")
        x = layer(x, self.num_classes, 1, norm="none", name="classes")
        x = self.pool_all(x, train=train)
        return (
            x if x.shape[-1] == self.num_classes else nn.Dense(self.num_classes, name="logits")(x)
        )


NAMES = {"base": "base_cnn", "strided": "strided_cnn", "convpool": "convpool_cnn", "all": "all_cnn"}
SUMMARIES = {
    "base": "3/2 maxima",
    "strided": "the convolution before each pool strided instead",
    "convpool": "one more convolution before each 3/2 maximum",
    "all": "a strided convolution for each pool",
}
# Without and with the additional convolutions.
COUNTS = {"A": (839_242, 1_254_250), "B": (885_610, 1_300_618), "C": (954_730, 1_369_738)}


def _card(model: str, variant: str) -> Network:
    return network(
        functools.partial(Springenberg, model=model, variant=variant),
        summary=f"model {model}, {SUMMARIES[variant]}",
        source="Springenberg et al. 2015, Striving for simplicity",
        image=(32, 32, 3),
        classes=10,
        parameters=COUNTS[model][variant in ("convpool", "all")],
        head="gap",
        widths=Springenberg.widths,
    )


CARDS: Mapping[str, Network] = {
    f"{NAMES[variant]}_{model.lower()}": _card(model, variant)
    for model in STAGES
    for variant in VARIANTS
}

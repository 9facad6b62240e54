"""Where does blur help: at the last stage, before it, or everywhere?

The last-stage theorem: where the kernel of the last pool vanishes at every frequency that its
stride folds onto zero, as the binomial [1, 2, 1] does at stride 2, a global average does not see
which phase that pool samples. With circular padding the logits of a network of total stride 8 then
repeat on a lattice of 4 pixels, not 8: 16 of them for all shifts of an image, not 64. Blur before
the last stage proves nothing; it only weakens what aliases.

Expected (Zhang 2019; `cnnjax.nets.cnn` with `last_pool`): 16 distinct logits instead of 64 with
blur at the last stage, so more consistency from that one blur alone; most with blur everywhere.
"""

from cnnjax.config import Config
from cnnjax.study.grid import Contrast, Study

STUDY = Study(
    name="blur_where",
    question=(
        "Three stages of stride 2 learn CIFAR-10 (JPEG). How much shift consistency comes from "
        "blur at the last stage, where it is exact, and how much from blur before it?"
    ),
    base=Config(
        dataset="cifar10_jpeg:train=5000:test=1000",
        net="cnn",
        widths=(16, 32, 64),
        kernel_size=3,
        dense=(),
        window=2,
        stride=2,
        padding="CIRCULAR",
        head="gap",
        norm="batch",
        train_shift=0,
        augment="flip",
        epochs=6,
        batch_size=64,
        lr=0.01,
        shift_images=200,
        measure="orbit",
    ),
    axes={
        "pool": ("max", "max_blur"),
        "last_pool": ("max", "max_blur"),
        "seed": (0, 1, 2, 3, 4),
    },
    contrast=Contrast(
        metric="circular_consistency",
        arm={"last_pool": "max_blur"},
        against={"last_pool": "max"},
        where={"pool": "max"},
        expected=1,
        source="Zhang 2019",
    ),
)

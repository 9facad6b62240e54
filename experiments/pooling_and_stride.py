"""Does what a network learned near the centre hold elsewhere, and which pooling keeps it?

Digits are learned within two pixels of the centre of a canvas and tested at 7 x 7 places all over
it. Everything but the pool is blind to where a digit is (circular padding, global average), so
what is lost away from the centre is lost to the pool's sampling.

Expected (Chaman and Dokmanic 2021; Zhang 2019): nothing is lost at stride 1; adaptive polyphase
sampling loses nothing at any stride; max, min, mean, sum and plain decimation lose more the larger
the stride; blurring before sampling lies between.
"""

from cnnjax.config import Config
from cnnjax.study.grid import Contrast, Study

STUDY = Study(
    name="pooling_and_stride",
    question=(
        "Digits are learned within 2 pixels of the centre of a 36 x 36 canvas. Does a network "
        "recognise them elsewhere, and how much of that do pooling method and stride decide?"
    ),
    base=Config(
        dataset="digits_canvas",
        net="cnn",
        widths=(8, 16),
        kernel_size=5,
        dense=(),
        window=3,
        padding="CIRCULAR",
        head="gap",
        norm="batch",
        epochs=6,
        batch_size=16,
        lr=0.03,
    ),
    axes={
        "pool": ("max", "min", "sum", "mean", "decimate", "max_blur", "aps"),
        "stride": (1, 2, 3),
        "seed": (0, 1, 2),
    },
    contrast=Contrast(
        metric="consistency",
        arm={"pool": "aps"},
        against={"pool": "max"},
        where={"stride": 3},
        expected=1,
        source="Chaman and Dokmanic 2021",
    ),
)

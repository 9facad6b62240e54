"""Padding, head, pool: which of them decides whether a network is invariant to shifts?

Each is blamed by someone: the padding lets a network see where the border is (Kayhan 2020, Islam
2020), a head that flattens gives every place weights of its own (Lin 2014), and what samples
between them aliases (Zhang 2019, Chaman and Dokmanic 2021). All combinations learn digits near the
centre of a canvas and are tested away from it; analysis of variance says how much of the difference
between them each one makes (`cnnjax.study.statistics.factors`).

Expected: the head decides most, as what flattens has never seen a digit elsewhere; with a global
average the pool decides the rest; padding counts least, as the canvas is black around the digits.
"""

from cnnjax.config import Config
from cnnjax.study.grid import Contrast, Study

STUDY = Study(
    name="padding_and_head",
    question=(
        "Digits are learned within 2 pixels of the centre of a black canvas and tested up to 10 "
        "away. Which decides what is lost there: the padding, the head or the pool?"
    ),
    base=Config(
        net="cnn",
        widths=(8, 16, 16),
        kernel_size=3,
        dense=(),
        window=3,
        stride=2,
        norm="batch",
        epochs=6,
        batch_size=16,
        lr=0.005,
        eval_places=5,
        eval_shift=10,
        shift_images=200,
        battery="none",
    ),
    axes={
        "dataset": (
            "digits_canvas:side=40",
            "mnist_canvas:side=48:train=1500:test=500",
        ),
        "padding": ("ZEROS", "CIRCULAR"),
        "head": ("flatten", "gap"),
        "pool": ("max", "max_blur", "aps"),
        "seed": (0, 1, 2, 3, 4),
    },
    contrast=Contrast(
        metric="accuracy_away",
        arm={"head": "gap"},
        against={"head": "flatten"},
        expected=1,
        source="Lin 2014",
    ),
)

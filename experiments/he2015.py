"""Does a deep plain network learn from Xavier's initial weights, or only from He's? (He 2015)

A rectifier halves the variance of what passes it. Weights of variance 1 / n (Xavier) let the signal
fade by that half in every layer, 2^-20 after twenty; of variance 2 / n (He) they keep it. Plain
convolutions, no normalisation, no shortcut, stochastic gradients, as in the paper, whose networks
of 22 and 30 layers are larger.

Expected (He et al. 2015, Delving deep into rectifiers, fig. 2 and 3): where the network is shallow
both learn, where it is deep only He's.
"""

from cnnjax.config import Config
from cnnjax.study.grid import Contrast, Study
from cnnjax.study.results import label

SHALLOW, DEEP = (16,) * 6, (16,) * 20

STUDY = Study(
    name="he2015",
    question=(
        "Plain networks of 6 and of 20 convolutions with rectifiers learn digits by stochastic "
        "gradients. Do they, from weights that start as Xavier or as He say?"
    ),
    base=Config(
        dataset="digits_canvas:side=8:scale=1",
        net="cnn",
        pool="decimate",
        stride=1,
        dense=(),
        padding="ZEROS",
        train_shift=0,
        epochs=10,
        batch_size=32,
        optimizer="sgd",
        lr=0.02,
        clip_norm=1.0,
        eval_places=2,
        eval_shift=1,
        shift_images=100,
        battery="none",
    ),
    axes={"widths": (SHALLOW, DEEP), "initializer": ("he", "xavier"), "seed": (0, 1, 2)},
    contrast=Contrast(
        "accuracy", {"initializer": "he"}, {"initializer": "xavier"}, {"widths": label(DEEP)}
    ),
)

"""Does the maximum beat subsampling, and do windows that overlap help? (Scherer 2010)

Subsampling is LeNet's: a mean with a trained coefficient and bias for each channel; the plain mean
stands beside it. Every window is taken with and without overlap. Windows 2, 3 and 5 at stride 2
differ in nothing but the overlap: all sizes, and so all parameters, are the same. With its stride
a window changes the size of every map behind it, and of the classifier.

Expected (Scherer, Müller and Behnke 2010, Evaluation of pooling operations in convolutional
architectures for object recognition, abstract): the maximum is significantly better; overlapping
windows are no significant improvement.
"""

from cnnjax.config import Config
from cnnjax.study.grid import Contrast, Study

STUDY = Study(
    name="scherer2010",
    question=(
        "Two convolutions with tanh learn MNIST. Is the maximum better than LeNet's subsampling "
        "and than the mean, and are windows of 2, 3 and 5 better where they overlap?"
    ),
    base=Config(
        dataset="mnist:train=2000:test=2000",
        net="cnn",
        widths=(8, 16),
        kernel_size=5,
        dense=(),
        activation="tanh",
        padding="ZEROS",
        head="flatten",
        train_shift=0,
        epochs=4,
        batch_size=16,
        eval_places=3,
        eval_shift=2,
        shift_images=200,
        battery="none",
    ),
    axes={
        "pool": ("max", "lenet_subsample", "mean"),
        "window": (2, 3, 5, 2, 3, 5),
        "stride": (2, 3, 5, 1, 2, 2),
        "seed": (0, 1, 2, 3, 4),
    },
    zipped=(("window", "stride"),),
    contrast=Contrast(
        metric="accuracy",
        arm={"pool": "max"},
        against={"pool": "lenet_subsample"},
        expected=1,
        source="Scherer 2010",
    ),
)

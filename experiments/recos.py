"""Does a convolutional network know a digit by its shape or by its ink? (Kuo 2016)

LeNet learns white digits on black and is then shown black digits on white. What it learned is no
use; with the filters of its first layer negated it is again, for the negative of a filter answers
the negative of an image as the filter answers the image.

Expected (Kuo 2016, Understanding convolutional neural networks with a mathematical model): accuracy
collapses on reversed images and comes back with the negated first layer. The paper takes the mean
off its images; here, where reversal also adds brightness, all of it comes back once the bias takes
that up. Rectifiers are said to be what tells an image from its negative: does one matter here?
"""

from cnnjax.config import Config
from cnnjax.study.grid import Contrast, Study

STUDY = Study(
    name="recos",
    question=(
        "LeNet is trained on MNIST and tested on images with grey reversed. What is left of its "
        "accuracy, what do negated filters in the first layer bring back, and what has the "
        "rectifier to do with it?"
    ),
    base=Config(
        dataset="mnist:train=10000:test=5000",
        net="lenet5_modern",
        padding="VALID",
        train_shift=0,
        epochs=3,
        batch_size=64,
        eval_places=2,
        eval_shift=1,
        shift_images=100,
        battery="none",
        measure="negative",
    ),
    axes={"activation": ("relu", "tanh", "identity"), "seed": (0, 1, 2)},
    contrast=Contrast("accuracy_reversed", {"activation": "relu"}, {"activation": "identity"}),
)

"""The recipe: what travels with a trained network so that it can judge a picture without its data.

    recipe = Recipe.of(dataset)
    image = recipe.read("cat.png")          # (H, W, C) uint8, as the network was trained on
    Recipe(**json.loads(json.dumps(recipe.to_dict()))) == recipe

A picture of exactly the network's size is taken as it is. Any other is fitted to the middle of the
map, inside the margin that the data set leaves empty, as its own pictures lie there.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnjax.data import canvas, picture
from cnnjax.data.dataset import Dataset
from cnnjax.data.picture import Frame


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Class names and preprocessing of a data set; JSON-ready by `to_dict`.

    image_shape: height, width, channels. slack: pixels of black around every picture. standardize,
    mean, std (per channel, of pixels / 255): as on `Dataset`. fit: as on `picture.Frame`.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    fit: str
    slack: int
    standardize: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        # JSON knows lists alone.
        for name in ("classes", "image_shape", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def of(cls, dataset: Dataset) -> Recipe:
        """Return the recipe of a loaded data set."""
        return cls(
            **{field.name: getattr(dataset, field.name) for field in dataclasses.fields(cls)}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dataclasses.asdict(self)

    def read(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Return a picture as the network takes it, (H, W, C) uint8.

        Raises UnreadablePicture for a file that is none, ValueError where the network takes no
        pictures (two channels, or a map that is not square).
        """
        height, width, channels = self.image_shape
        if height != width or channels not in picture.MODES:
            raise ValueError(
                f"this network takes arrays of shape {self.image_shape}; pictures are square here, "
                "with 1 or 3 channels"
            )
        whole = Frame(height, channels, self.fit)
        if self.slack == 0 or picture.size(path) == (height, width):
            return picture.read(path, whole)
        inner = picture.read(path, Frame(height - 2 * self.slack, channels, self.fit))
        return canvas.place(inner[None], side=height)[0]

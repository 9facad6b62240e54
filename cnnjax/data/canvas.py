"""Room to move: pictures -> the same pictures in the middle of a larger black square.

content = centre(content, side=36, scale=2)     # 8x8 -> doubled to 16x16 -> 36x36, slack 10
"""

from __future__ import annotations

import numpy as np

from cnnjax.data.dataset import Content, Split


def centre(content: Content, *, side: int, scale: int = 1) -> Content:
    """Enlarge both splits `scale` times (nearest neighbour) and centre them on `side` x `side`.

    Where the margin is odd the spare row and column are below and to the right. Raises ValueError
    if `scale` is below 1 or the enlarged picture does not fit.
    """
    if scale < 1:
        raise ValueError(f"scale={scale}: expected 1 or more")
    picture = scale * max(content.train.images.shape[1:3])
    if side < picture:
        raise ValueError(f"side={side}: expected {picture} or more, the side of the picture")
    train, test = (
        Split(place(split.images, side=side, scale=scale), split.labels)
        for split in (content.train, content.test)
    )
    return content._replace(train=train, test=test, slack=(side - picture) // 2)


def place(images: np.ndarray, *, side: int, scale: int = 1) -> np.ndarray:
    """Return (N, side, side, C): `images` (N, H, W, C) enlarged, centred, zeros around."""
    enlarged = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = enlarged.shape
    top, left = (side - height) // 2, (side - width) // 2
    canvas = np.zeros((count, side, side, channels), images.dtype)
    canvas[:, top : top + height, left : left + width] = enlarged
    return canvas

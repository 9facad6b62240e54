"""LeNet-5's output: distances to fixed pictures of the digits, (..., 84) -> penalties (..., K).

    penalties = rbf(x, bitmaps(10))          # (..., 10), the smallest is the answer

Each class has a 7 x 12 bitmap of -1 and +1; its unit is the squared Euclidean distance between the
84 values of layer F6 and that picture (LeCun et al. 1998, section II.B and fig. 3). The paper shows
its bitmaps but prints no numbers: the ten here are drawn anew, in the same size and style.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

WIDTH, HEIGHT = 7, 12
# Twelve rows a digit, seven columns each; a row is a number whose highest of 7 bits is the left.
DIGITS: tuple[tuple[int, ...], ...] = (
    (0x00, 0x1C, 0x36, 0x63, 0x63, 0x63, 0x63, 0x63, 0x36, 0x1C, 0x00, 0x00),
    (0x00, 0x0C, 0x1C, 0x3C, 0x0C, 0x0C, 0x0C, 0x0C, 0x0C, 0x3F, 0x00, 0x00),
    (0x00, 0x3E, 0x63, 0x03, 0x03, 0x06, 0x0C, 0x18, 0x30, 0x7F, 0x00, 0x00),
    (0x00, 0x7F, 0x06, 0x0C, 0x1E, 0x03, 0x03, 0x03, 0x63, 0x3E, 0x00, 0x00),
    (0x00, 0x06, 0x0E, 0x1E, 0x36, 0x66, 0x7F, 0x06, 0x06, 0x06, 0x00, 0x00),
    (0x00, 0x7F, 0x60, 0x60, 0x7E, 0x03, 0x03, 0x03, 0x63, 0x3E, 0x00, 0x00),
    (0x00, 0x1E, 0x30, 0x60, 0x7E, 0x63, 0x63, 0x63, 0x63, 0x3E, 0x00, 0x00),
    (0x00, 0x7F, 0x03, 0x06, 0x06, 0x0C, 0x0C, 0x18, 0x18, 0x18, 0x00, 0x00),
    (0x00, 0x3E, 0x63, 0x63, 0x36, 0x3E, 0x63, 0x63, 0x63, 0x3E, 0x00, 0x00),
    (0x00, 0x3E, 0x63, 0x63, 0x63, 0x3F, 0x03, 0x03, 0x06, 0x3C, 0x00, 0x00),
)


def bitmaps(num_classes: int) -> np.ndarray:
    """Return the first `num_classes` digits as (num_classes, 84) float32 of -1 and +1.

    ValueError for more than ten classes: the paper's code book has no picture of other things.
    """
    if not 1 <= num_classes <= len(DIGITS):
        raise ValueError(
            f"num_classes: lenet5 answers with pictures of the ten digits, got {num_classes} "
            "classes; allowed: 1 to 10 (lenet5_modern takes any number)"
        )
    rows = np.array(DIGITS[:num_classes], np.uint8)
    bits = np.unpackbits(rows[..., None], axis=-1)[..., -WIDTH:]
    return 2.0 * bits.reshape(num_classes, WIDTH * HEIGHT).astype(np.float32) - 1.0


def rbf(x: jax.Array, centres: np.ndarray) -> jax.Array:
    """Return the squared distances (..., K) of x (..., F) to the centres (K, F)."""
    fixed = jnp.asarray(centres, x.dtype).reshape((1,) * (x.ndim - 1) + centres.shape)
    return jnp.sum(jnp.square(x[..., None, :] - fixed), axis=-1)

"""Convolution where each output map sees some input maps: x (..., H, W, C) -> (..., H', W', D).

    TableConv(features=16, kernel_size=(5, 5), padding="VALID", table=C3)

`table[d]` lists the input maps of output map d. Only these connections have weights.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.layers.conv import Conv
from cnnjax.ops.padding import Pair

Table = tuple[tuple[int, ...], ...]

# LeCun et al. 1998, table I: 60 connections from the 6 maps of S2 to the 16 of C3.
C3: Table = (
    *(tuple((first + i) % 6 for i in range(3)) for first in range(6)),
    *(tuple((first + i) % 6 for i in range(4)) for first in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class TableConv(Conv):
    """Conv with a connection table; "kernel" (kh, kw, connections) goes output map by output map.

    A pool before it may multiply the channels: channel q then counts as map q mod C.
    """

    table: Table = C3

    def weights(self, channels: int, kernel_size: Pair) -> jax.Array:
        """Make the parameter; return the kernel (kh, kw, channels, features), 0 off the table."""
        maps = 1 + max(max(row) for row in self.table)
        if self.features != len(self.table) or channels % maps:
            raise ValueError(
                f"table: expected {len(self.table)} features of a multiple of {maps} channels, "
                f"got {self.features} of {channels}"
            )
        if self.feature_group_count != 1:
            raise ValueError(
                "feature_group_count: expected 1, as the table says what is connected, "
                f"got {self.feature_group_count}"
            )
        seen = [[q for q in range(channels) if q % maps in row] for row in self.table]
        connected = self.param("kernel", self._initialize, kernel_size, tuple(map(len, seen)))
        # Where a connection is missing, the kernel takes the zero after the last weight.
        places = np.full((channels, self.features), connected.shape[-1])
        for target, row in enumerate(seen):
            places[row, target] = sum(map(len, seen[:target])) + np.arange(len(row))
        return jnp.pad(connected, [(0, 0), (0, 0), (0, 1)])[:, :, places]

    def _initialize(self, key: jax.Array, size: Pair, counts: tuple[int, ...]) -> jax.Array:
        # Maps that see equally many are drawn together: the initialiser needs their fan-in.
        runs = [(count, len(list(run))) for count, run in itertools.groupby(counts)]
        draws = []
        for part, run in zip(jax.random.split(key, len(runs)), runs, strict=True):
            draw = self.kernel_init(part, (*size, *run), self.param_dtype)
            draws.append(jnp.moveaxis(draw, -1, -2).reshape(*size, -1))
        return jnp.concatenate(draws, axis=-1)

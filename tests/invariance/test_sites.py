"""What is read of a convolution or pool against what it does to a rolled map."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.invariance import sites
from cnnjax.layers.conv import Conv
from cnnjax.layers.pooling import POOLS, Pool


def rolls(module: nn.Module, size: tuple[int, int]) -> bool:
    """The definition: a roll of the map by the stride rolls the output by a cell."""
    x = jax.random.normal(jax.random.key(0), (1, *size, 2))
    variables = module.init(jax.random.key(1), x)
    # Some kernels start at zero, and see no border.
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves) + 1)
    drawn = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=False)]
    variables = jax.tree.unflatten(tree, drawn)
    site = sites.read(module, size)
    y, down, across = (
        np.asarray(module.apply(variables, jnp.roll(x, d, axis=(1, 2))))
        for d in ((0, 0), (site.stride[0], 0), (0, site.stride[1]))
    )
    expected = [
        np.roll(y, grown, axis=(1, 2)) for grown in ((site.grows[0], 0), (0, site.grows[1]))
    ]
    return all(np.allclose(*pair, atol=1e-5) for pair in zip(expected, (down, across), strict=True))


PADDINGS = ("VALID", "SAME", "ZEROS", "CIRCULAR")


@pytest.mark.slow
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("method", ["max", "mean", "blur", "max_blur", "lip"])
def test_a_pool_counts_as_circular_where_it_rolls(method: str, padding: str) -> None:
    for window, stride, size in ((2, 2, (6, 8)), (3, 2, (6, 8)), (2, 2, (7, 9)), (1, 2, (6, 8))):
        if method == "lip" and window == 1:
            continue  # the mean of one value, whatever its weight
        own = {"window": window} if "window" in POOLS[method].takes else {}
        module = Pool(method, stride=stride, padding=padding, **own)
        assert sites.read(module, size).circular == rolls(module, size), (window, stride, size)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_convolution_counts_as_circular_where_it_rolls(padding: str) -> None:
    for window, stride, size in ((2, 2, (6, 8)), (3, 2, (6, 8)), (2, 2, (7, 9)), (1, 3, (6, 9))):
        for kind in (nn.Conv, Conv):
            given = 1 if padding == "ZEROS" and kind is nn.Conv else padding
            module = kind(2, (window, window), strides=stride, padding=given)
            assert sites.read(module, size).circular == rolls(module, size), (window, stride, size)


@pytest.mark.parametrize(
    ("module", "circular"),
    [
        (nn.ConvTranspose(2, (3, 3), strides=(2, 3), padding="CIRCULAR"), True),
        (nn.ConvTranspose(2, (3, 3), strides=(2, 3), padding="SAME"), False),
        (nn.Conv(2, (3, 3), padding="CIRCULAR", kernel_dilation=2), True),
        (Pool("space_to_depth", stride=2), True),
        (Pool("haar", stride=2), True),
        (Pool("s3", window=2, stride=2, padding="CIRCULAR"), True),
        (Pool("spectral", stride=2), True),
        (Pool("fractional_max"), False),
    ],
)
def test_other_sites(module: nn.Module, circular: bool) -> None:
    site = sites.read(module, (6, 8))
    assert site.circular == circular
    if site.kind != "fractional_max":
        assert rolls(module, (6, 8)) == circular
    assert site.grows == ((2, 3) if "transposed" in site.kind else (1, 1))


def test_the_window_is_all_that_an_output_sees() -> None:
    seen = {
        "blur": (3, 3), "gaussian_blur": (5, 5), "max_blur": (4, 4), "lip": (4, 4), "haar": (2, 2),
        "decimate": (1, 1), "aps_blur": (3, 3), "max_aps": (2, 2), "tlpf": (3, 3), "s3": (3, 3),
    }  # fmt: skip
    for method, window in seen.items():
        own = {"window": 2} if "window" in POOLS[method].takes else {}
        assert sites.reach(Pool(method, stride=2, **own)) == window, method
    learned = Pool("canonical", method="lip", window=2, stride=2)
    assert sites.reach(learned) == (4, 4)
    fixed = Pool("canonical", method="blur", stride=2)
    assert sites.reach(fixed) == (3, 3)


def test_the_flaw_says_what_is_wrong() -> None:
    flaws = {
        "padding 'ZEROS' is not circular": Pool("lip", window=2, stride=2, padding="VALID"),
        "VALID windows do not tile the map (6, 9)": Pool("max", window=2, stride=2),
        "stride (2, 2) does not divide the map (6, 9)": Pool(
            "max", window=2, stride=2, padding="CIRCULAR"
        ),
        "follows no lattice": Pool("fractional_max"),
    }
    for words, module in flaws.items():
        assert sites.read(module, (6, 9)).flaw == words

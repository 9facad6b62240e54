"""The smallest image: known sizes, and errors that say it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from net_numbers import NARROW

from cnnjax.build import build_net
from cnnjax.config import Config
from cnnjax.layers.pooling import pool
from cnnjax.nets import NETS, fit
from cnnjax.nets.blocks import Downsampling


def build(name: str, pool: Downsampling | None = None, **choices: Any) -> Any:
    card = NETS[name]
    return card.module(num_classes=10, pool=pool or card.pooling, **(dict(card.defaults) | choices))


@pytest.mark.parametrize(
    ("name", "pool", "least"),
    [
        ("lenet5", None, 1),
        ("alexnet", None, 63),
        ("vgg11", None, 17),
        ("cnn", None, 5),
        ("all_cnn_c", None, 9),
        ("vgg11", Downsampling("aps", stride=2), 32),
        pytest.param("vgg11", Downsampling("aps", stride=3), 243, marks=pytest.mark.slow),
    ],
)
def test_smallest(name: str, pool: Downsampling | None, least: int) -> None:
    """VGG's halvings, rounded up: 17, 9, 5, 3, 2, 1. LeNet-5 puts small images on its field."""
    net = build(name, pool)
    channels = NETS[name].image[2]
    assert fit.smallest(net, channels) == least
    fit.check(net, (least, least, channels))
    if least == 1:
        return
    with pytest.raises(ValueError) as caught:
        fit.check(net, (least - 1, least - 1, channels))
    assert "\n" not in str(caught.value)


def test_nothing_fits() -> None:
    """AlexNet's borders give odd maps, which selection by phase cannot halve."""
    assert fit.smallest(build("alexnet", Downsampling("aps", window=None)), 3) is None


@pytest.mark.parametrize(
    ("choices", "shape", "words"),
    [
        ({"net": "alexnet"}, (32, 32, 3), "the smallest square image is 63 x 63"),
        ({"net": "lenet5", "padding": "VALID"}, (28, 28, 1), "smallest square image is 32 x 32"),
        ({"net": "vgg11", "pool": "aps"}, (28, 28, 1), "the smallest square image is 32 x 32"),
        ({"net": "vgg11", "widths": (8, 8)}, (32, 32, 3), "widths: expected 5 of them"),
        ({"net": "resnet20_cifar", "dense": (8,)}, (32, 32, 3), "dense: net .* takes none"),
        ({"net": "googlenet", "widths": (8,)}, (224, 224, 3), "widths: net .* takes none"),
        ({"net": "lenet5", "widths": (8,)}, (32, 32, 1), "widths: net .* takes none"),
    ],
)
def test_errors_say_what_to_do(
    choices: dict[str, Any], shape: tuple[int, int, int], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        build_net(Config(**choices), 10, shape)
    assert "\n" not in str(caught.value)


def test_more_classes_than_bitmaps() -> None:
    with pytest.raises(ValueError, match=r"num_classes: lenet5 .* got 100"):
        build_net(Config(net="lenet5"), 100, (32, 32, 1))


def test_a_pool_of_stride_one_may_reach_over_its_border() -> None:
    """GoogLeNet's 3 x 3 maxima inside inceptions stand on 1 x 1 maps of 32 x 32 images."""
    net = build("googlenet_3x3")
    fit.check(net, (33, 33, 3))
    shape = jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), x)[0], jnp.zeros((1, 33, 33, 3))
    )
    assert shape.shape == (1, 10)


# Without borders a branch of 3 x 3 convolutions is smaller than the one it is joined with.
BRANCHING = tuple(name for name in NARROW if name.startswith(("resnet", "googlenet")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.long] * n.startswith(("vgg", "alexnet", "zfnet")))
        for n in NARROW
        if n not in BRANCHING
    ],
)
def test_every_family_says_its_smallest_image(name: str) -> None:
    """One pixel is too small without borders; the size that is said fits, one less does not."""
    config, channels = Config(net=name, padding="VALID"), NETS[name].image[2]

    def said(side: int) -> int:
        with pytest.raises(ValueError, match="smallest square image is") as caught:
            build_net(config, 10, (side, side, channels))
        return int(str(caught.value).rsplit(" ", 1)[1])

    least = said(1)
    assert said(least - 1) == least
    build_net(config, 10, (least, least, channels))


@pytest.mark.slow
@pytest.mark.parametrize("name", BRANCHING)
def test_branches_do_not_meet_without_borders(name: str) -> None:
    with pytest.raises(ValueError, match="shapes") as caught:
        build_net(Config(net=name, padding="VALID"), 10, (224, 224, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("padding", ["VALID", "SAME", "ZEROS", "CIRCULAR", "REFLECT", "EDGE"])
@pytest.mark.parametrize("window", [2, 3, 5, 9])
def test_windows_larger_than_their_map_as_pool_has_it(padding: str, window: int) -> None:
    """What `cnnjax.pool` does, a network may do; what it refuses, a network refuses."""
    net = build("cnn", Downsampling("max", window, 1, padding), widths=(2,), padding=padding)
    size = 4 if padding != "VALID" else 6  # VALID convolutions take two pixels
    try:
        pool(jnp.zeros((1, 4, 4, 2)), "max", window=window, stride=1, padding=padding)
    except ValueError as error:
        with pytest.raises(ValueError, match="larger than the map") as caught:
            fit.check(net, (size, size, 3))
        assert str(caught.value).startswith(str(error))
    else:
        fit.check(net, (size, size, 3))


@pytest.mark.parametrize("padding", ["VALID", "SAME", "CIRCULAR"])
@pytest.mark.parametrize("window", [(5, 4), (4, 5)])
def test_a_window_that_was_asked_for_is_no_larger_than_its_map(
    padding: str, window: tuple[int, int]
) -> None:
    """Larger than any map on the way, not only than the image."""
    config = Config(pool="max", window=window, stride=1, padding=padding, widths=(2,))
    side = 4 if padding != "VALID" else 6  # VALID convolutions take two pixels
    with pytest.raises(ValueError, match=r"window: .* is larger than the map \(4, 4\)") as caught:
        build_net(config, 10, (side, side, 3))
    assert "\n" not in str(caught.value)
    build_net(config, 10, (side + 1, side + 1, 3))


def test_a_published_window_may_be_larger_than_its_map() -> None:
    """GoogLeNet's own 3 x 3 windows on maps of one pixel; the same number asked for is refused."""
    build_net(Config(net="googlenet_3x3"), 10, (33, 33, 3))
    with pytest.raises(ValueError, match="the smallest square image is"):
        build_net(Config(net="googlenet_3x3", window=3), 10, (33, 33, 3))

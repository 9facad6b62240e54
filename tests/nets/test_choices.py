"""Head, normalisation, activation and dropout are free in every network; traced."""

from __future__ import annotations

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import net_numbers
import numpy as np
import pytest

from cnnjax.layers.activations import ACTIVATIONS
from cnnjax.layers.norms import NORMS
from cnnjax.layers.pooling import HEADS
from cnnjax.nets import NETS
from cnnjax.nets.blocks import Downsampling
from cnnjax.nets.classifier import auxiliary_logits
from cnnjax.nets.googlenet import GoogLeNet

KINDS = ("cnn", "lenet5", "alexnet_2012", "zfnet", "vgg11", "resnet20_cifar", "base_cnn_a", "stn")
CHOICES = tuple(zip(HEADS, itertools.cycle(NORMS), itertools.cycle(ACTIVATIONS), strict=False)) + (
    ("gap", "batch", "identity"),
)


def build(name: str, **choices: Any) -> Any:
    card = NETS[name]
    return card.module(num_classes=10, **(dict(card.defaults) | choices))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_every_head_norm_and_activation(name: str) -> None:
    image = jax.ShapeDtypeStruct((2, 96, 96, NETS[name].image[2]), jnp.float32)
    for head, norm, activation in CHOICES:
        net = build(name, head=head, norm=norm, activation=activation, dropout=0.1)
        rngs = {key: jax.random.key(0) for key in ("params", "dropout", "pool")}
        out = jax.eval_shape(
            lambda x, net=net, rngs=rngs: net.init_with_output(rngs, x, train=True)[0], image
        )
        assert out.shape == (2, 10), (head, norm, activation)


def test_choices_name_every_row() -> None:
    heads, norms, activations = (set(part) for part in zip(*CHOICES, strict=True))
    assert (heads, norms, activations) == (set(HEADS), set(NORMS), set(ACTIVATIONS))


@pytest.mark.parametrize("name", ["alexnet", "all_cnn_c"])
def test_published_dropout_acts_in_training_alone(name: str) -> None:
    """Without a key for dropout training fails, evaluation does not; a rate of 0 needs none."""
    image = jnp.zeros((1, 65, 65, 3))

    def run(net: Any, train: bool) -> Any:
        keys = {"params": jax.random.key(0), "pool": jax.random.key(0)}
        return jax.eval_shape(
            lambda x: net.apply(net.init(keys, x), x, train=train, mutable=True, rngs={})[0], image
        )

    published = build(name)
    assert run(published, False).shape == (1, 10)
    with pytest.raises(Exception, match="dropout"):
        run(published, True)
    assert run(build(name, dropout=0.0), True).shape == (1, 10)


@pytest.mark.slow
def test_auxiliary_heads_speak_in_training_alone() -> None:
    net = GoogLeNet(num_classes=10, dropout=0.0)
    image = jnp.zeros((2, 64, 64, 3))
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x), image)
    assert set(variables) == {"params", "batch_stats"}

    def heads(variables: Any, train: bool) -> Any:
        _, aside = net.apply(variables, image, train=train, mutable=["auxiliary", "batch_stats"])
        return auxiliary_logits(aside)

    shapes = jax.eval_shape(lambda v: heads(v, True), variables)
    assert [leaf.shape for leaf in shapes] == [(2, 10), (2, 10)]
    assert jax.eval_shape(lambda v: heads(v, False), variables) == []


def test_a_pool_of_stride_one_inside_an_inception_stays() -> None:
    """It lowers no resolution, so that no study of pooling touches it."""
    net = GoogLeNet(num_classes=2, pool=Downsampling("mean", padding="CIRCULAR"))
    seen: dict[str, str] = {}

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if hasattr(context.module, "method"):
            seen[context.module.name] = context.module.method
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: net.init(jax.random.key(0), x), jnp.zeros((1, 32, 32, 3)))
    inside = {name: method for name, method in seen.items() if name.startswith("inception")}
    assert len(inside) == 9
    assert set(inside.values()) == {"max"}
    assert {seen[name] for name in ("pool1", "pool3", "pool4")} == {"mean"}


def test_response_norm_only_where_it_was_published() -> None:
    """AlexNet normalises after its first two layers: scaling the later ones scales the logits."""
    net = build("alexnet_2012", widths=(4, 4, 6, 6, 4), dense=(), head="gap", dropout=0.0)
    variables = jax.tree.map(np.abs, net_numbers.variables(net, (67, 67, 3)))
    for name in ("conv3", "conv4", "conv5", "logits"):
        layer = variables["params"][name]
        layer.get("conv", layer)["bias"][:] = 0
    x = net_numbers.images((1, 67, 67, 3))
    apply = jax.jit(net.apply)
    before = np.asarray(apply(variables, x))
    variables["params"]["conv5"]["conv"]["kernel"] *= 2
    np.testing.assert_allclose(apply(variables, x), 2 * before, rtol=1e-5)
    variables["params"]["conv1"]["conv"]["kernel"] *= 1000
    variables["params"]["conv1"]["conv"]["bias"] *= 1000
    assert np.max(apply(variables, x)) < 500 * 2 * before.max()

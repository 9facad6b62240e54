"""Grey reversed: negated and recentred first filters answer as the filters did, to rounding."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from cnnjax import build, data
from cnnjax.config import FIELDS, Config
from cnnjax.study.measures import MEASURES, distinct_rows, first_convolution, negative, with_first

CONFIG = Config(
    dataset="digits_canvas:side=12:scale=1:train=300:test=200",
    widths=(4,),
    dense=(),
    padding="VALID",
    measure="negative",
)


def network() -> tuple[object, object, object]:
    dataset = data.load(CONFIG.dataset)
    net = build.build_net(CONFIG, 10, dataset.image_shape)
    x = np.zeros((1, *dataset.image_shape), np.float32)
    return net, jax.jit(net.init)(jax.random.key(0), x), dataset


def test_recentred_filters_undo_the_reversal() -> None:
    net, variables, dataset = network()
    images = dataset.test.images[:8]  # type: ignore[attr-defined]
    see = build.build_input(dataset)  # type: ignore[arg-type]
    apply = jax.jit(net.apply)  # type: ignore[attr-defined]
    undone = with_first(variables, "stage0/conv", recentre=True)
    before = apply(variables, see(images))
    np.testing.assert_allclose(apply(undone, see(255 - images)), before, atol=1e-4)
    negated = with_first(variables, "stage0/conv", recentre=False)
    assert np.abs(apply(negated, see(255 - images)) - before).max() > 1e-2


def test_figures() -> None:
    net, variables, dataset = network()
    found = negative(CONFIG, net, variables, dataset)  # type: ignore[arg-type]
    assert list(found) == ["accuracy_reversed", "accuracy_negated", "accuracy_recentred"]
    apply = jax.jit(net.apply)  # type: ignore[attr-defined]
    see = build.build_input(dataset)  # type: ignore[arg-type]
    images, labels = dataset.test  # type: ignore[attr-defined]
    for name, x in (("accuracy_recentred", images), ("accuracy_reversed", 255 - images)):
        expected = np.mean(np.argmax(apply(variables, see(x)), axis=-1) == labels)
        assert found[name] == pytest.approx(float(expected), abs=0.011)


def test_the_first_convolution_is_the_first_that_is_called() -> None:
    net, variables, dataset = network()
    shape = dataset.image_shape  # type: ignore[attr-defined]
    assert first_convolution(net, variables, shape) == "stage0/conv"  # type: ignore[arg-type]


def test_rows() -> None:
    assert "|".join(MEASURES) == FIELDS["measure"].metadata["kind"].metavar
    assert MEASURES["none"](CONFIG, None, None, None) == {}  # type: ignore[arg-type]


def test_distinct_rows() -> None:
    rows = np.array([[1.0, 2.0], [1.0 + 1e-7, 2.0], [1.0, 2.1], [0.0, 0.0]])
    assert distinct_rows(rows) == 3
    assert distinct_rows(np.ones((5, 3))) == 1


@pytest.mark.parametrize(
    ("pool", "last", "orbit_size"),
    [
        ("max", "max_blur", 4),
        pytest.param("max", "max", 16, marks=pytest.mark.slow),
        pytest.param("aps", "aps", 1, marks=pytest.mark.slow),
    ],
)
def test_orbits(pool: str, last: str, orbit_size: int) -> None:
    """Two stages of stride 2: 16 logits, 4 where the last one blurs, one where nothing is lost."""
    config = Config(
        dataset="digits_canvas:side=12:scale=1:train=20:test=20",
        widths=(3, 4),
        dense=(),
        padding="CIRCULAR",
        head="gap",
        pool=pool,
        last_pool=last,
    )
    dataset = data.load(config.dataset)
    net = build.build_net(config, 10, dataset.image_shape)
    x = np.zeros((1, *dataset.image_shape), np.float32)
    variables = jax.jit(net.init)(jax.random.key(0), x)
    assert MEASURES["orbit"](config, net, variables, dataset) == {"logit_orbit": orbit_size}

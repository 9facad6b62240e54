"""What else differs between arms: a confound card for each, and widths that make costs alike.

    table = confounds(study, runs)           # a row an arm
    matched(study, "flops", {"pool": "max"})   # the study with widths that cost what max costs

`body` says of a network what `nets.anatomy` reads off its traced program.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pandas as pd

from cnnjax import build, data, spec
from cnnjax.config import Config
from cnnjax.invariance import sites
from cnnjax.layers.pooling import POOLS
from cnnjax.nets import NETS
from cnnjax.nets.anatomy import Numbers, anatomy
from cnnjax.study.grid import Study
from cnnjax.study.results import distinct, label

Shape = tuple[int, int, int]
COLUMNS = (
    *("parameters", "flops", "activation_bytes", "resolution", "receptive_field"),
    *("total_stride", "phase", "constant_gain", "seconds"),
)
GLOBAL = "global"


@dataclass(frozen=True)
class Body:
    """A network on one image: trained values; operations and bytes of all layers; the last map.

    flops: the compiler's count for the forward pass, a product and a sum being two. field, stride
    and phase are those of the last map, in pixels, as `nets.anatomy` reads them off the traced
    program: what a unit sees, how far units stand apart, and where the first one's field is
    centred, modulo the stride. They are None where units see the whole image or no regular part.
    """

    parameters: int
    flops: int
    activation_bytes: int
    resolution: tuple[int, ...]
    field: Numbers | None
    stride: Numbers | None
    phase: Numbers | None
    gain: float


def body(net: nn.Module, shape: Shape) -> Body:
    """Return what a network is on images of `shape`; it is traced, not computed."""
    variables, gains = _variables(net, shape), _Gains()
    with nn.intercept_methods(gains):
        jax.eval_shape(partial(net.apply, train=False), variables, _image(shape))
    whole = anatomy(net, shape, variables)
    last = whole.last_map
    return Body(
        parameters=whole.parameters,
        flops=forward_flops(net, shape),
        activation_bytes=whole.activation,
        resolution=last.shape[:2] if last else shape[:2],
        field=last.field if last else None,
        stride=last.stride if last else None,
        phase=last.phase if last else None,
        gain=gains.product,
    )


class _Gains:
    """Interceptor: the product of the pools' gains on a constant map."""

    def __init__(self) -> None:
        self.product = 1.0

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__" and sites.is_pool(context.module):
            self.product *= _gain(context.module)
        return call(*args, **kwargs)


def _gain(module: Any) -> float:
    names = ("window", "stride", "padding")
    own = {name: getattr(module, name) for name in names if hasattr(module, name)}
    gain = POOLS[module.method].gain({**own, **getattr(module, "arguments", {})})
    return float("nan") if gain is None else float(gain)


def forward_flops(net: nn.Module, shape: Shape) -> int:
    """Return the operations of one image's forward pass, counted in the program before XLA's."""
    forward: Any = net.apply
    step = jax.jit(lambda variables, x: forward(variables, x, train=False))
    counted = step.lower(_variables(net, shape), _image(shape)).cost_analysis() or {}
    return int(counted.get("flops", 0))


def parameters(net: nn.Module, shape: Shape) -> int:
    """Return the number of trained values."""
    return sum(leaf.size for leaf in jax.tree.leaves(_variables(net, shape)["params"]))


COSTS: Mapping[str, Callable[[nn.Module, Shape], int]] = {
    "flops": forward_flops,
    "params": parameters,
}


def confounds(study: Study, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the confound card of every arm of a study: its axes, then COLUMNS.

    flops and activation_bytes are of one image's forward pass in float32; receptive_field,
    total_stride and phase are those of the last map, in pixels, the field "global" and the others
    None where its units see the whole image or no regular part of it; constant_gain is the product
    of the pools' gains on a constant map, NaN where a trained parameter decides it; seconds is the
    mean over the finished runs of the arm, NaN without `runs`.
    """
    configs = _arms(study)
    shapes = _shapes(configs)
    by = [name for name in study.axes if name != "seed"]
    rows = []
    for config in configs:
        dataset_shape, classes = shapes[config.dataset]
        found = body(build.build_net(config, classes, dataset_shape), dataset_shape)
        axes = {name: label(getattr(config, name)) for name in by}
        rows.append(axes | _row(found) | {"seconds": _seconds(runs, config, by)})
    return pd.DataFrame(rows, columns=[*by, *COLUMNS])


def _row(found: Body) -> dict[str, Any]:
    values = dataclasses.asdict(found)
    renamed = {"field": "receptive_field", "stride": "total_stride", "gain": "constant_gain"}
    values["field"] = found.field or GLOBAL
    return {renamed.get(name, name): label(value) for name, value in values.items()}


def _seconds(runs: pd.DataFrame | None, config: Config, by: list[str]) -> float:
    if runs is None or "seconds" not in runs:
        return float("nan")
    own = distinct(runs[runs["status"] == "done"])
    for name in by:
        value = label(getattr(config, name))
        own = own[own[name] == value] if value is not None else own[own[name].isna()]
    return float(own["seconds"].astype(float).mean())


def matched(study: Study, cost: str, to: Mapping[str, Any] | None = None) -> Study:
    """Return the study with every arm's widths rescaled until it costs what its reference costs.

    cost: "flops" or "params". to: values that make an arm its own reference, {"pool": "max"} for
    the same arm with pool max; default: the grid's first arm for all. Widths become an axis that
    goes with the others, so that every trial's Config says them. ValueError where a net takes no
    widths, the reference is not in the grid, or trials would become one or more than they were.
    """
    spec.find(COSTS, cost, "match")
    references = _references(study, to)
    shapes = _shapes(list(references))
    found = [
        widths_like(config, reference, cost, *shapes[config.dataset])
        for config, reference in references.items()
    ]
    columns = {
        name: tuple(getattr(config, name) for config in references) for name in _compared(study)
    }
    group = {**columns, "widths": tuple(found)}
    others = {name: values for name, values in study.axes.items() if name == "seed"}
    same = dataclasses.replace(study, axes=group | others, zipped=(tuple(group),), conditions=())
    before, after = len(study.trials()), len(same.trials())
    if before != after:
        raise ValueError(
            "match: expected every arm at every seed and no arms that differ in widths alone, got "
            f"{before} trials that would become {after}"
        )
    return same


def apart(study: Study, cost: str, to: Mapping[str, Any] | None = None) -> float:
    """Return the largest share by which an arm of a `matched` study misses its reference's cost."""
    references = _references(study, to)
    shapes = _shapes(list(references))

    @cache
    def price(arm: Config) -> int:
        return _price(arm, cost, *shapes[arm.dataset])

    return max(abs(price(arm) / price(other) - 1) for arm, other in references.items())


def _references(study: Study, to: Mapping[str, Any] | None) -> dict[Config, Config]:
    """Return the arm that each arm of the study is to cost as much as."""
    configs, axes = _arms(study), _compared(study)
    to = {name: getattr(configs[0], name) for name in axes} if to is None else to
    return {config: _reference(config, configs, axes, to) for config in configs}


def _compared(study: Study) -> list[str]:
    return [name for name in study.axes if name not in ("seed", "widths")]


def _reference(
    config: Config, configs: list[Config], axes: list[str], to: Mapping[str, Any]
) -> Config:
    """Return the first arm of the grid that has the values `to` and is like `config` otherwise."""
    # A window that the arm's own pool does not take says nothing of its reference's.
    like = [name for name in axes if name != "window" or config.window is not None]
    wanted = {name: getattr(config, name) for name in like} | dict(to)
    for other in configs:
        if all(getattr(other, name) == value for name, value in wanted.items()):
            return other
    text = ", ".join(f"{name}={label(value)}" for name, value in wanted.items())
    raise ValueError(f"match: the reference arm {text} is not in the grid")


def widths_like(
    config: Config, reference: Config, cost: str, shape: Shape, classes: int
) -> tuple[int, ...]:
    """Return the widths at which `config` costs nearest to what `reference` costs.

    All widths by one factor first, then one at a time by one channel while that comes nearer.
    """
    own = widths(config)

    def price(arm: Config) -> int:
        return _price(arm, cost, shape, classes)

    target = price(reference)
    # An arm whose own widths do not fit is refused here, before others are tried.
    known: dict[tuple[int, ...], float] = {own: price(config) - target}

    def gap(candidate: tuple[int, ...]) -> float:
        if candidate not in known:
            try:
                known[candidate] = price(dataclasses.replace(config, widths=candidate)) - target
            except ValueError:  # these widths do not fit, as where groups must divide them
                known[candidate] = float("inf")
        return known[candidate]

    best = min(_scaled(own, gap), key=lambda candidate: abs(gap(candidate)))
    while (nearer := min(_neighbours(best), key=lambda c: abs(gap(c)))) and (
        abs(gap(nearer)) < abs(gap(best))
    ):
        best = nearer
    return best


def _price(arm: Config, cost: str, shape: Shape, classes: int) -> int:
    return COSTS[cost](build.build_net(arm, classes, shape), shape)


def widths(config: Config) -> tuple[int, ...]:
    """Return a config's widths, those published where it leaves them open."""
    given = config.widths or NETS[config.net].defaults.get("widths")
    if given is None:
        raise ValueError(f"match: net {config.net!r} takes no widths to rescale")
    return tuple(given)


def _scaled(
    own: tuple[int, ...], gap: Callable[[tuple[int, ...]], float], steps: int = 10
) -> list[tuple[int, ...]]:
    """Return widths along one common factor, halving its interval towards no gap."""
    if gap(own) == 0:
        return [own]
    low, high, tried = 1 / 16, 16.0, [own]
    for _ in range(steps):
        middle = (low * high) ** 0.5
        tried.append(tuple(max(1, round(width * middle)) for width in own))
        low, high = (low, middle) if gap(tried[-1]) > 0 else (middle, high)
    return tried


def _neighbours(own: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for place, change in itertools.product(range(len(own)), (-1, 1)):
        if own[place] + change >= 1:
            yield (*own[:place], own[place] + change, *own[place + 1 :])


def _arms(study: Study) -> list[Config]:
    return list(dict.fromkeys(dataclasses.replace(t.config, seed=0) for t in study.trials()))


def _shapes(configs: list[Config]) -> dict[str, tuple[Shape, int]]:
    sets = {c.dataset: data.load(c.dataset, c.data_dir) for c in configs}
    return {name: (found.image_shape, found.num_classes) for name, found in sets.items()}


def _image(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _variables(net: nn.Module, shape: Shape) -> Any:
    def create(image: jax.Array) -> Any:
        return net.init(jax.random.key(0), image, train=False)

    return jax.eval_shape(create, _image(shape))

"""A network layer by layer: what each gives, sees of the image and costs; traced, not computed.

    body = anatomy(net, (32, 32, 3))
    body.layers[2].shape, body.layers[2].field, body.layers[2].stride   # (16, 16, 64), (10, 10), ..
    print(body.table())

The receptive field of a layer is that of its inner units: borders continue the image. Units of a
map stand on a lattice of pixels, `stride` apart, the first one's field centred at `start`. A layer
whose units see the image from end to end is "global", as are units that see it in no regular way
(a spectrum, a sampled grid); see `ops.receptive`, which reads the program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from cnnjax.ops import receptive
from cnnjax.ops.receptive import Mark
from cnnjax.ops.views import View

Numbers = tuple[float, ...]
ELSEWHERE = "(outside of layers)"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer for one image: output shape (without the batch), trained values, costs, view.

    `flops` are two for each product of convolutions and matrices, as papers count; `activation`
    is the output in bytes. `field`, `stride` and `start` (rows, columns) are in pixels; `field` is
    None where the layer is global, `stride` and `start` where it is no map.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    activation: int
    field: Numbers | None
    stride: Numbers | None
    start: Numbers | None

    @property
    def phase(self) -> Numbers | None:
        """Where the lattice lies: `start` modulo `stride`; None where there is no lattice."""
        if self.start is None or self.stride is None:
            return None
        return tuple(at % step for at, step in zip(self.start, self.stride, strict=True))


@dataclass(frozen=True)
class Anatomy:
    """All layers in the order of the forward pass, and the map that the head makes a vector of.

    `last_map` is what all branches together give; None where no layer makes a vector of a map.
    """

    layers: tuple[Layer, ...]
    last_map: Layer | None

    @property
    def parameters(self) -> int:
        """Trained values of all layers, those that training alone uses included."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        """Operations of one image: two for each product."""
        return sum(layer.flops for layer in self.layers)

    @property
    def activation(self) -> int:
        """Bytes of all layers' outputs for one image."""
        return sum(layer.activation for layer in self.layers)

    def table(self) -> str:
        """Return a line a layer and the totals, as text."""
        head = ("layer", "kind", "output", "parameters", "FLOPs", "bytes", "field", "stride", "at")
        rows = [_cells(layer) for layer in self.layers]
        totals = (f"{n:,}" for n in (self.parameters, self.flops, self.activation))
        rows = [head, *rows, ("total", "", "", *totals, "", "", "")]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def anatomy(net: nn.Module, image_shape: tuple[int, ...], variables: Any = None) -> Anatomy:
    """Read net off its forward pass on one image (H, W, C); `variables` may be shapes alone."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    if variables is None:
        variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
    watch = _Watch()

    def forward(variables: Any, x: jax.Array) -> Any:
        with nn.intercept_methods(watch):
            return net.apply(variables, x, train=False)

    reading = receptive.read(forward, variables, image, watch=1)
    owned = _owned(variables["params"], watch)
    layers = [
        _layer(path, kind, reading.marks[path], image_shape, owned, reading.products)
        for path, kind in watch.kinds.items()
        if path not in watch.parents or owned.get(path) or reading.products.get(path)
    ]
    elsewhere = _elsewhere(owned.get("", 0), reading.products.get("", 0))
    return Anatomy((*layers, *elsewhere), _last_map(layers, reading, image_shape))


class _Watch:
    """Interceptor: marks every module's call in the program and notes which hold others."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.parents: set[str] = set()

    def __call__(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, path = context.module, "/".join(context.module.path)
        watched = context.method_name == "__call__" and path and hasattr(args[0], "ndim")
        if not watched or isinstance(module, nn.Dropout):
            return call(*args, **kwargs)
        self.parents |= {path.rsplit("/", n)[0] for n in range(1, path.count("/") + 1)}
        y = receptive.between_marks(call, args, kwargs, path)
        self.kinds.pop(path, None)
        self.kinds[path] = getattr(module, "method", type(module).__name__)
        return y


def _last_map(
    layers: list[Layer], reading: receptive.Reading, image_shape: tuple[int, ...]
) -> Layer | None:
    """Return what comes to the last layer that makes something else of a map."""
    entered = {layer.path: reading.entered[layer.path] for layer in layers}
    heads = [v.path for v in layers if len(v.shape) != 3 and len(entered[v.path].shape) == 4]
    if not heads:
        return None
    return _layer(heads[-1], "input", entered[heads[-1]], image_shape, {}, {})


def _owned(params: Any, watch: _Watch) -> dict[str, int]:
    """Return how many trained values belong to each layer; "" for those of no layer called."""
    owned: dict[str, int] = {}
    for names, leaf in flatten_dict(params).items():
        path = "/".join(names[:-1])
        while path and path not in watch.kinds:
            path = path.rpartition("/")[0]
        owned[path] = owned.get(path, 0) + math.prod(leaf.shape)
    return owned


def _layer(
    path: str,
    kind: str,
    mark: Mark,
    image_shape: tuple[int, ...],
    owned: dict[str, int],
    products: dict[str, int],
) -> Layer:
    is_map = len(mark.shape) == 4
    views = [view or View.everything(len(mark.shape)) for view in mark.views]
    whole = any(_is_global(view, size) for view, size in zip(views, image_shape, strict=False))
    lattice = is_map and not whole
    return Layer(
        path=path,
        kind=kind,
        shape=mark.shape[1:],
        parameters=owned.get(path, 0),
        flops=2 * products.get(path, 0),
        activation=math.prod(mark.shape) * mark.dtype.itemsize,
        field=None if whole else tuple(int(view.extent) for view in views),
        stride=tuple(view.step for view in views) if lattice else None,
        start=tuple(float(view.low + view.high) / 2 for view in views) if lattice else None,
    )


def _is_global(view: View, size: int) -> bool:
    """True where all units see the same, from one end of the image to the other."""
    return math.isinf(view.extent) or (
        not any(view.steps) and view.low <= 0 and view.high >= size - 1
    )


def _elsewhere(parameters: int, products: int) -> list[Layer]:
    """Return a line for auxiliary heads, which training alone uses, and for work between layers."""
    if not parameters and not products:
        return []
    none: Any = dict.fromkeys(("field", "stride", "start"))
    return [
        Layer(path=ELSEWHERE, kind="", shape=(), parameters=parameters, flops=2 * products,
              activation=0, **none)
    ]  # fmt: skip


def _cells(layer: Layer) -> tuple[str, ...]:
    counts = (f"{n:,}" for n in (layer.parameters, layer.flops, layer.activation))
    field = "global" if layer.field is None else _pair(layer.field)
    return (
        layer.path,
        layer.kind,
        "x".join(map(str, layer.shape)),
        *counts,
        field if layer.shape else "",
        _pair(layer.stride) if layer.stride else "",
        _pair(layer.start) if layer.start else "",
    )


def _pair(values: Numbers) -> str:
    same = len(set(values)) == 1
    return "x".join(f"{value:g}" for value in (values[:1] if same else values))

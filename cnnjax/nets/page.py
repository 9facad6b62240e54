"""The page of networks: NETS -> docs/networks.md.

python -m cnnjax.nets.page > docs/networks.md
"""

from __future__ import annotations

from cnnjax.nets import NETS, Network

HEAD = """# Networks

Rows of `cnnjax.NETS`, chosen by `--net`. This page is generated: `python -m cnnjax.nets.page`.

Every network takes the same choices, and None is what it was published with, layer by layer:

| argument | what it changes |
|---|---|
| `--pool` | the method of every place that lowers the resolution: pools and strided convolutions |
| `--last_pool` | the method of the last stage alone (`cnn`, `lenet5_modern`) |
| `--window` | that of all of them, no larger than the maps; a strided convolution's is its stride |
| `--stride` | the stride of all of them |
| `--pool_position` | before the normalisation (`after_conv`) or after the rectifier |
| `--padding` | the border of all convolutions and of all pools that can have it |
| `--initializer` | how all weights start (except those of pools and of a spatial transformer) |
| `--transformer` | a spatial transformer in front, `affine` or `translation`; starts as identity |
| `--head`, `--norm`, `--activation`, `--dropout` | the same in the whole network |
| `--widths`, `--kernel_size`, `--dense` | sizes, where the network takes them |

A strided convolution is the method `decimate` directly after a convolution of stride 1; both are
one function, and it is computed as the former. Where a residual block's pool selects a phase by
content (aps, lps), its shortcut takes the same phase. `response` (local response normalisation)
follows the rectifier, other normalisations precede it.

Parameters are counted for the images and classes of the row; the sizes of full connections after
`flatten` follow the image's. Auxiliary heads, which training alone uses, are not counted. What was
chosen where a paper is ambiguous stands in the first lines of the network's file in `cnnjax/nets`.

| name | what it is | image | classes | parameters | published choices | initial weights | source |
|---|---|---|---|---|---|---|---|
"""
SHOWN = ("head", "norm", "activation", "padding", "widths", "kernel_size", "dense", "dropout")


def page() -> str:
    """Return the whole page in Markdown."""
    return HEAD + "".join(f"{_row(name, card)}\n" for name, card in NETS.items())


def _row(name: str, card: Network) -> str:
    image = " x ".join(map(str, card.image))
    known = {key: card.defaults[key] for key in SHOWN if card.defaults.get(key) is not None}
    choices = ", ".join(f"{key}={_text(value)}" for key, value in known.items())
    cells = (f"`{name}`", card.summary, image, str(card.classes), f"{card.parameters:,}")
    return "| " + " | ".join([*cells, choices, card.weights, card.source]) + " |"


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    print(page(), end="")

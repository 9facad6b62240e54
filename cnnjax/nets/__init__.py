"""NETS: the networks by name, each a card with the choices it was published with.

    card = NETS["vgg16"]
    net = card.module(num_classes=10, pool=Downsampling("blur"), **card.defaults)

A new network is one file with its cards, named here; its page, flags and tests follow from them:

    python -m cnnjax.nets.page > docs/networks.md
"""

from __future__ import annotations

from collections.abc import Mapping

from cnnjax.nets import alexnet, cnn, googlenet, lenet, resnet, springenberg, stn, vgg
from cnnjax.nets.card import Network

__all__ = ["NETS", "Network"]

NETS: Mapping[str, Network] = {
    **cnn.CARDS,
    **lenet.CARDS,
    **stn.CARDS,
    **alexnet.CARDS,
    **vgg.CARDS,
    **googlenet.CARDS,
    **resnet.CARDS,
    **springenberg.CARDS,
}

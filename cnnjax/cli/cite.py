"""`cnnjax cite METHOD...`: what to cite for pooling methods and heads: names -> BibTeX.

cnnjax cite aps max_blur canonical:method=lip
cnnjax cite all
"""

from __future__ import annotations

from cnnjax.layers.heads import HEADS
from cnnjax.layers.methods import POOLS, cite


def main(argv: list[str]) -> int:
    """Run `cnnjax cite <argv>`; the user's mistakes raise ValueError."""
    if {"--help", "-help", "-h"} & set(argv):
        print(__doc__, f"pools: {', '.join(POOLS)}", f"heads: {', '.join(HEADS)}", sep="\n")
        return 0
    if not argv:
        raise ValueError("expected a pooling method, a head, or all; see --help")
    names = [*POOLS, *HEADS] if argv == ["all"] else argv
    print(cite(*names))
    return 0

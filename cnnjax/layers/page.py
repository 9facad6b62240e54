"""docs/methods.md from the cards: POOLS and HEADS -> one page of Markdown.

python -m cnnjax.layers.page > docs/methods.md
"""

from __future__ import annotations

from typing import Any

from cnnjax.layers import citations
from cnnjax.layers.card import CLAIMS, PoolingMethod
from cnnjax.layers.heads import HEADS, Head
from cnnjax.layers.methods import POOLS
from cnnjax.ops.allowed import REQUIRED, Parameter

OPENING = """# Methods

This page is written by `python -m cnnjax.layers.page > docs/methods.md` from the cards in
`cnnjax/layers/methods.py`; change those, not this. `cnnjax cite METHOD...` prints the BibTeX.

Claims of equivariance, for circular padding:
"""


def render() -> str:
    """Return the whole page."""
    claims = [f"- **{code}** {text}." for code, text in CLAIMS.items()]
    pools = [_pool(card) for card in POOLS.values()]
    heads = ["## Heads", *(_head(card) for card in HEADS.values())]
    return "\n\n".join([OPENING + "\n" + "\n".join(claims), *pools, *heads]) + "\n"


def _pool(card: PoolingMethod) -> str:
    facts = {
        "formula": f"`{card.formula}`",
        "equivariance": card.equivariance,
        "takes": ", ".join(card.takes) or "no window, stride or padding",
        "kind": _kind(card),
        "NaN": card.nan,
        "cite": _sources(card.cites),
    }
    own = {k: v for k, v in card.parameters.items() if k not in card.takes}
    return "\n".join([f"## {card.name}", "", f"{_sentence(card.summary)}", "", *_list(facts, own)])


def _head(card: Head) -> str:
    facts = {
        "blind to shifts": "yes" if card.blind else "no",
        "cite": _sources(card.cites),
    }
    return "\n".join(
        [f"### {card.name}", "", _sentence(card.summary), "", *_list(facts, card.parameters)]
    )


def _list(facts: dict[str, str], parameters: dict[str, Parameter]) -> list[str]:
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return lines + [f"- `{name}`: {_parameter(value)}" for name, value in parameters.items()]


def _parameter(parameter: Parameter) -> str:
    default: Any = parameter.default
    told = "required" if default is REQUIRED else f"default {default!r}"
    return f"{parameter.allowed}, {told}"


def _kind(card: PoolingMethod) -> str:
    words = ["trained" if card.learnable else "fixed"]
    words += ["random in training"] if card.stochastic else []
    words += [f"`learn=True` trains its {card.learns}"] if card.learns else []
    words += ["module `Pool` only"] if card.function is None else []
    return ", ".join(words)


def _sources(keys: tuple[str, ...]) -> str:
    return "; ".join(f"{citations.title(key)} ({key})" for key in keys)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


if __name__ == "__main__":
    print(render(), end="")

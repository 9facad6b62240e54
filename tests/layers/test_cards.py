"""The cards against a table written by hand, and what is derived from them."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.cli import cite as cite_verb
from cnnjax.layers import citations, page
from cnnjax.layers.card import CLAIMS
from cnnjax.layers.methods import POOLS, cite
from cnnjax.layers.pooling import HEADS, Pool, canonical_arm, parse, parse_head, pool

# name: takes (window, stride, padding), claim, gain on 1 at window 3 stride 2, flags, parameters.
# Flags: L learnable, S stochastic, D has a dense form, M only as a module, C after the convolution.
TABLE = {
    "max": ("wsp", "P1", 1, "D", {}),
    "min": ("wsp", "P1", 1, "D", {}),
    "sum": ("wsp", "P1", 9, "D", {}),
    "mean": ("wsp", "P1", 1, "D", {"count_include_pad": True}),
    "median": ("wsp", "P1", 1, "D", {}),
    "decimate": ("s", "P1", 1, "DC", {}),
    "lp": ("wsp", "P1", 1, "D", {"p": 2.0, "reduce": "mean"}),
    "gem": ("wsp", "P1", 1, "D", {"p": 3.0, "eps": 1e-6}),
    "lse": ("wsp", "P1", 1, "D", {"r": 10.0}),
    "max_mean": ("wsp", "P1", 1, "D", {"combine": "mean"}),
    "space_to_depth": ("s", "P1", 1, "D", {}),
    "haar": ("s", "P1", 2, "D", {"bands": "low"}),
    "lenet_subsample": ("wsp", "P1", None, "DLM", {}),
    "blur": ("sp", "P1", 1, "D", {"filter_size": 3}),
    "max_blur": ("wsp", "P1", 1, "D", {"filter_size": 3}),
    "gaussian_blur": ("sp", "P1", 1, "D", {"filter_size": 5, "sigma": 1.0}),
    "ddac": ("sp", "P1", 1, "DLM", {"filter_size": 3, "groups": 1}),
    "tlpf": ("sp", "P1", 1, "DLM", {"filter_size": 3}),
    "aps": ("sp", "P2", 1, "", {"p": 2}),
    "aps_blur": ("sp", "P2", 1, "", {"filter_size": 3, "p": 2, "judge": "after"}),
    "max_aps": ("wsp", "P2", 1, "", {"p": 2}),
    "lps": ("sp", "P2", 1, "LSM", {"hidden": None}),
    "spectral": ("sp", "P3", 1, "D", {}),
    "diffstride": ("sp", "P3", 1, "LM", {"smoothness": 4.0, "match_size": False}),
    "flc": ("sp", "P1", 1, "D", {}),
    "mixed": ("wsp", "P1", 1, "DLM", {"share": "layer"}),
    "gated": ("wsp", "P1", 1, "DLM", {"share": "layer"}),
    "tree": ("wsp", "P1", None, "DLM", {"depth": 2}),
    "softpool": ("wsp", "P1", 1, "D", {}),
    "beta_softmax": ("wsp", "P1", 1, "D", {"beta": 1.0}),
    "lip": ("wsp", "P1", 1, "DLM", {"kernel_size": 3, "coefficient": 12.0}),
    "dpp": ("wsp", "P1", 1, "DLM", {"variant": "lite", "symmetric": True, "eps": 1e-3}),
    "ordinal": ("wsp", "P1", 1, "DLM", {"share": "layer"}),
    "stochastic": ("wsp", "P5", 1, "DSM", {}),
    "mixed_random": ("wsp", "P5", 1, "DSM", {"share": "layer"}),
    "max_dropout": ("wsp", "P5", None, "DSM", {"rate": 0.5}),
    "fractional_max": (
        "", "P6", 1, "SM", {"ratio": 2**0.5, "regions": "pseudo", "overlap": True},
    ),
    "s3": ("wsp", "P5", 1, "DSM", {"grid": None}),
    "canonical": ("sp", "P2", 1, "", {"method": None, "p": 2}),
}  # fmt: skip

CHANNELS = {"space_to_depth": 4}


def test_the_table_is_complete() -> None:
    assert list(TABLE) == list(POOLS)
    assert list(HEADS) == [
        "gap", "gmp", "gap_gmp", "gem", "lse", "topk_mean", "attention", "flatten",
    ]  # fmt: skip
    assert [name for name, head in HEADS.items() if not head.blind] == ["flatten"]


@pytest.mark.parametrize("name", TABLE)
def test_card(name: str) -> None:
    card = POOLS[name]
    takes, claim, gain, flags, params = TABLE[name]
    assert card.name == name
    assert "".join(part[0] for part in card.takes) == takes
    assert card.equivariance == claim and claim in CLAIMS
    assert card.params == params
    assert card.learnable == ("L" in flags)
    assert card.stochastic == ("S" in flags)
    assert card.has_dense == ("D" in flags)
    assert (card.function is None) == ("M" in flags)
    assert card.position == ("after_conv" if "C" in flags else "after_activation")
    bound = ("CIRCULAR",) if ("p" in takes and claim in ("P2", "P3")) or name == "flc" else None
    assert bound is None or card.paddings == bound
    arguments = {"window": (3, 3), "stride": (2, 2)}
    assert card.gain(arguments) == gain
    assert card.channels(arguments) == CHANNELS.get(name, 1)


QUICK = ("max", "sum", "mean", "blur", "aps", "haar", "space_to_depth", "spectral")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TABLE]
)
def test_gain_and_channels_are_true(name: str) -> None:
    card = POOLS[name]
    x = jnp.full((1, 12, 12, 2), 3.0)
    kwargs = {"window": 3} if "w" in TABLE[name][0] else {}
    kwargs |= {"method": "mean", "window": 3} if name == "canonical" else {}
    module = Pool(name, stride=2 if "s" in TABLE[name][0] else None, **kwargs)
    y = module.apply(module.init(jax.random.key(0), x), x)
    gain = TABLE[name][2]
    if gain is not None:
        np.testing.assert_allclose(y, 3.0 * gain, rtol=1e-5)
    assert y.shape[-1] == 2 * CHANNELS.get(name, 1)
    assert card.nan


def test_equal_arms() -> None:
    same = {
        ("max", 1, 2): "decimate",
        ("max", 2, 1): None,
        ("mean", 1, 3): "decimate",
        ("sum", 1, 2): "decimate",
        ("lp", 1, 2): None,
        ("aps", None, 1): "decimate",
        ("aps", None, 2): None,
        ("spectral", None, 1): "decimate",
        ("space_to_depth", None, 1): "decimate",
        ("blur:filter_size=1", None, 2): "decimate",
        ("blur:filter_size=1:learn=true", None, 2): None,
        ("max_blur:filter_size=1", 2, 2): "max",
        ("max_blur:filter_size=1", 1, 2): "decimate",
        ("max_blur:filter_size=5", 1, 2): "blur:filter_size=5",
        ("max_aps", 1, 2): "aps",
        ("max_aps:p=1", 1, 2): "aps:p=1",
        ("max_aps", 2, 1): "max",
        ("aps_blur:filter_size=1", None, 2): "aps",
        ("aps_blur:filter_size=5", None, 1): "blur:filter_size=5",
        ("beta_softmax:beta=0", 2, 2): "mean",
        ("beta_softmax", 2, 2): "softpool",
        ("max_mean:combine=sum", 1, 2): None,
        ("canonical:method=decimate", None, 2): "aps",
        ("canonical:method=max", 2, 1): "max",
        ("canonical:method=max", 2, 2): None,
        ("canonical:method=spectral", None, 2): None,
    }
    for (text, window, stride), expected in same.items():
        assert canonical_arm(text, window, stride) == expected, (text, window, stride)


@pytest.mark.slow
def test_equal_arms_are_equal_functions() -> None:
    x = np.random.default_rng(0).normal(size=(4, 4, 2)).astype(np.float32)
    checked = 0
    for name, card in POOLS.items():
        if card.function is None or name == "canonical":
            continue
        for window, stride in ((1, 2), (2, 1)):
            arm = canonical_arm(name, window, stride)
            if arm is None:
                continue
            own, other = ({"window": window} if "window" in POOLS[n].takes else {}
                          for n in (name, parse(arm)[0].name))  # fmt: skip
            circular = {"padding": "CIRCULAR"} if "padding" in card.takes else {}
            also = {"padding": "CIRCULAR"} if "padding" in parse(arm)[0].takes else {}
            y = pool(x, name, stride=stride, **own, **circular)
            z = pool(x, parse(arm)[0].name, stride=stride, **other, **also, **parse(arm)[1])
            np.testing.assert_allclose(y, z, rtol=1e-6, err_msg=f"{name} {arm}")
            checked += 1
    assert checked == 11 + 8  # at window 1, at stride 1


def test_parse() -> None:
    card, params = parse("lp:p=3:reduce=sum")
    assert (card.name, params) == ("lp", {"p": 3, "reduce": "sum"})
    assert parse("lp:learn=true")[1] == {"learn": True}
    assert parse_head("gem:p=4")[1] == {"p": 4}
    card, params = parse("canonical:method=softpool")
    assert card.takes == ("window", "stride", "padding")
    assert parse("canonical:method=blur:filter_size=5")[0].takes == ("stride", "padding")
    for text, words in {
        "lp:q=3": "q: unknown parameter of pool 'lp'; allowed: window, stride, padding, p, reduce",
        "lp:p=-1": "p: expected a number > 0, got -1",
        "aps:p=3": "p: expected one of 1, 2, inf, got 3",
        "max:learn=true": "learn: pool 'max' has nothing to train; allowed for lp, gem",
        "canonical": "method: pool 'canonical' needs one, got none; allowed: max",
        "canonical:method=aps": "method: 'aps' has no form at stride 1",
        "mxa": "pool: unknown name 'mxa'; did you mean max",
    }.items():
        with pytest.raises(ValueError) as error:
            parse(text)
        assert words in str(error.value)
    with pytest.raises(TypeError, match="p: expected a number > 0, got 'x'"):
        parse("lp:p=x")
    with pytest.raises(ValueError, match="k: expected an int >= 1, got 0"):
        parse_head("topk_mean:k=0")


def test_every_row_is_cited(capsys: pytest.CaptureFixture[str]) -> None:
    for card in (*POOLS.values(), *HEADS.values()):
        assert card.cites and all(key in citations.entries() for key in card.cites)
    used = {key for card in (*POOLS.values(), *HEADS.values()) for key in card.cites}
    assert used == set(citations.entries())
    assert cite("aps", "aps_blur").count("@inproceedings{chaman2021") == 1
    assert "gao2019" in cite("canonical:method=lip")
    assert cite_verb.main(["blur"]) == 0
    assert capsys.readouterr().out.startswith("@inproceedings{zhang2019,")
    with pytest.raises(ValueError, match="did you mean"):
        cite_verb.main(["bluur"])
    with pytest.raises(ValueError, match="expected a pooling method"):
        cite_verb.main([])


def test_the_committed_page_is_up_to_date() -> None:
    written = (Path(__file__).parents[2] / "docs" / "methods.md").read_text("utf-8")
    assert written == page.render(), "run: python -m cnnjax.layers.page > docs/methods.md"

"""Statistics of a study: differences between arms, paired over seeds, and what may be said of them.

    table = family(runs, by=["pool", "stride"], margins={"accuracy": 0.01})
    table[["metric", "arm_a", "arm_b", "n", "difference", "low", "high", "p_holm", "verdict"]]
    sentences(table)                                   # one a comparison
    factors(runs, ["pool", "stride"], "consistency")   # which axis decides: analysis of variance
    ranking(runs, by=["pool", "stride"], metric="accuracy")
    power(table, wanted=0.01)                          # seeds needed, from the observed spread
    seeds_needed(0.01, sd=0.008)                       # before anything has run
    image_family(runs, by, predictions)                # test images as a second level
    mcnemar(runs, by, predictions)                     # two trained networks on the same images

Within a seed the arms share initial values, batches and augmentation, so their differences are
paired and the seed is the unit. Every table is tidy: one row a comparison, one column a fact.
`docs/statistics.md` has the definitions, the degenerate cases and the simulations behind them.
"""

from cnnjax.study.statistics.contrast import (
    Difference,
    compare,
    default_contrast,
    expectation,
    sentence,
)
from cnnjax.study.statistics.factors import factors
from cnnjax.study.statistics.family import ALPHA, correct, family, sentences
from cnnjax.study.statistics.images import image_family, mcnemar, mcnemar_sentences
from cnnjax.study.statistics.paired import LEVEL, Paired, examine, interval
from cnnjax.study.statistics.planning import power, seeds_needed
from cnnjax.study.statistics.ranking import ranking

__all__ = [
    "ALPHA",
    "LEVEL",
    "Difference",
    "Paired",
    "compare",
    "correct",
    "default_contrast",
    "examine",
    "expectation",
    "factors",
    "family",
    "image_family",
    "interval",
    "mcnemar",
    "mcnemar_sentences",
    "power",
    "ranking",
    "seeds_needed",
    "sentence",
    "sentences",
]

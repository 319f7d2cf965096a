"""What a sample proves about the whole: the exact upper bound of a share (Clopper and Pearson, 1934)."""

from __future__ import annotations

import math
import sys
from decimal import ROUND_CEILING, Decimal

from airflow_provider_heapbraze.clients.errors import ConfigurationError

RESOLUTION = 2e-10  # where the halving ends
# Added to what was found, so that it is never below the exact bound. The logarithms of factorials up to that
# of 1,000,000 are off by about 1e-9, which moves the bound by far less than this: by less than 1e-11.
MARGIN = 1e-10
NEGLIGIBLE = 1e-12  # of a sum: what is left of it changes nothing


def upper_bound(found: int, sample: int, confidence: float = 0.95) -> float:
    """Return the share of the whole that is not reached, as sure as ``confidence``: a one-sided exact bound.

    It is the largest share with which so few would be found in a sample more often than in ``1 - confidence``
    of all samples. It is rounded up, by less than 1e-9, and never down. A sample of nobody proves nothing: 1.

    :param found: how many of the sample have it.
    :param sample: how many were looked at, drawn at random; up to 1,000,000.
    :param confidence: between 0 and 1.
    :raises ConfigurationError: the numbers do not go together.
    """
    if not 0 <= found <= sample:
        raise ConfigurationError(
            f"A sample of {sample} in which {found} are found cannot be. Nothing was sent."
        )
    if not 0 < confidence < 1:
        raise ConfigurationError(f"A confidence of {confidence} is not between 0 and 1. Nothing was sent.")
    if found == sample:
        return 1.0
    if found == 0:
        bound = -math.expm1(math.log1p(-confidence) / sample)
        return min(1.0, bound * (1 + 8 * sys.float_info.epsilon))
    low, high = 0.0, 1.0
    while high - low > RESOLUTION:
        middle = (low + high) / 2
        if _is_unlikely(found, sample, middle, confidence):
            high = middle
        else:
            low = middle
    return min(1.0, high + MARGIN)


def as_claim(share: float) -> str:
    """Return a share as a percentage for people, rounded up to two significant digits: ``0.5 %``.

    "Fewer than" stays true by this. The share is taken as it is written: 0.07 is 7 %, whatever its last bit.

    :param share: from 0 to 1.
    """
    percent = Decimal(repr(float(share))) * 100
    rounded = percent.quantize(Decimal(1).scaleb(percent.adjusted() - 1), ROUND_CEILING)
    return f"{rounded.normalize():f} %"


def _is_unlikely(found: int, sample: int, share: float, confidence: float) -> bool:
    """Return whether a sample holds so few, or fewer, in no more than ``1 - confidence`` of all cases.

    The tail is added up that the mean is not in: its terms only fall, and no digits are lost in a difference.
    """
    odds = share / (1 - share)
    if found + 1 < (sample + 1) * share:
        return _fewer(found, sample, odds, _probability(found, sample, share)) <= 1 - confidence
    return _more(found + 1, sample, odds, _probability(found + 1, sample, share)) >= confidence


def _probability(found: int, sample: int, share: float) -> float:
    """Return how probable it is to find just so many."""
    return math.exp(
        math.fsum(
            (
                math.lgamma(sample + 1),
                -math.lgamma(found + 1),
                -math.lgamma(sample - found + 1),
                found * math.log(share),
                (sample - found) * math.log1p(-share),
            )
        )
    )


def _fewer(found: int, sample: int, odds: float, term: float) -> float:
    """Return the sum from 0 to ``found``, whose last term is given."""
    total = term
    while found and term > total * NEGLIGIBLE:
        term *= found / ((sample - found + 1) * odds)
        total += term
        found -= 1
    return total


def _more(found: int, sample: int, odds: float, term: float) -> float:
    """Return the sum from ``found`` to ``sample``, whose first term is given."""
    total = term
    while found < sample and term > total * NEGLIGIBLE:
        term *= (sample - found) * odds / (found + 1)
        total += term
        found += 1
    return total

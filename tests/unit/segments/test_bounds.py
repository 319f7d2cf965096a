"""Exact bounds of a share, against exact arithmetic that shares nothing with them."""

import math
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.segments.bounds import as_claim, upper_bound

TOLERANCE = 1e-9


def cdf(found: int, sample: int, share: float) -> Fraction:
    """P(X <= found), without any rounding: a float is a fraction with a power of two below."""
    above, below = Fraction(max(share, 0.0)).as_integer_ratio()
    total = sum(math.comb(sample, i) * above**i * (below - above) ** (sample - i) for i in range(found + 1))
    return Fraction(total, below**sample)


def decimal_cdf(found: int, sample: int, share: float) -> Decimal:
    """P(X <= found) to 60 digits, added up from nobody: for samples that are too large for fractions."""
    with localcontext(Context(prec=60, Emin=-999999999, Emax=999999999)):
        has = Decimal(share)
        term = total = (1 - has) ** sample
        odds = has / (1 - has)
        for i in range(found):
            term *= odds * (sample - i) / (i + 1)
            total += term
        return total


def is_exact(found: int, sample: int, confidence: float) -> bool:
    bound = upper_bound(found, sample, confidence)
    alpha = 1 - Fraction(confidence)
    return cdf(found, sample, bound) <= alpha < cdf(found, sample, bound - TOLERANCE)


samples = st.integers(1, 120).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n)))
confidences = st.sampled_from([1e-12, 0.01, 0.5, 0.9, 0.95, 0.975, 0.99, 1 - 1e-6, 1 - 1e-12, 1 - 2**-53]) | (
    st.floats(1e-6, 1 - 1e-6)
)


@given(samples, confidences)
@settings(max_examples=100, deadline=None)
def test_a_bound_is_exact_and_rounded_up(numbers, confidence):
    assert is_exact(*numbers, confidence)


@pytest.mark.parametrize(("found", "sample"), [(0, 600), (1, 600), (3, 1000), (299, 600), (399, 400)])
def test_bounds_of_larger_samples_are_exact(found, sample):
    assert is_exact(found, sample, 0.95)


@pytest.mark.parametrize(
    ("found", "sample"), [(0, 1_000_000), (7, 1_000_000), (20_000, 1_000_000), (99_000, 100_000)]
)
def test_bounds_of_the_largest_samples_are_exact(found, sample):
    bound = upper_bound(found, sample)
    alpha = 1 - Decimal("0.95")
    assert decimal_cdf(found, sample, bound) <= alpha < decimal_cdf(found, sample, bound - TOLERANCE)


@pytest.mark.parametrize(
    ("found", "sample", "published"), [(81, 263, 0.3676), (15, 148, 0.1617), (0, 20, 0.1684), (1, 29, 0.1776)]
)
def test_bounds_are_those_in_the_literature(found, sample, published):
    # Newcombe 1998, table I, method 5: both sides at 95 % are one side at 97.5 %.
    assert upper_bound(found, sample, 0.975) == pytest.approx(published, abs=5e-5)
    assert is_exact(found, sample, 0.975)


@pytest.mark.parametrize("sample", [1, 2, 30, 600, 1_000_000])
def test_nobody_found_has_a_closed_form(sample):
    assert upper_bound(0, sample) == pytest.approx(1 - 0.05 ** (1 / sample), rel=1e-9)


@pytest.mark.parametrize("sample", [100, 600, 10_000, 1_000_000])
def test_nobody_found_is_the_rule_of_three(sample):
    assert 0.98 * 3 / sample < upper_bound(0, sample) < 3 / sample


def test_nobody_of_600_is_fewer_than_half_a_percent():
    assert upper_bound(0, 600) < 0.005
    assert as_claim(upper_bound(0, 600)) == "0.5 %"
    assert cdf(0, 600, 0.005) < Fraction(1, 20)
    assert upper_bound(0, 597) > 0.005


@pytest.mark.parametrize(("found", "sample"), [(0, 0), (1, 1), (600, 600), (1_000_000, 1_000_000)])
def test_a_sample_that_excludes_nothing_is_bounded_by_all(found, sample):
    assert upper_bound(found, sample) == 1.0


@given(samples, st.floats(0.01, 0.99))
@settings(max_examples=50, deadline=None)
def test_a_bound_is_a_share_above_what_was_found(numbers, confidence):
    found, sample = numbers
    bound = upper_bound(found, sample, confidence)
    assert 0 < bound <= 1
    assert confidence < 0.7 or bound > found / sample


@given(samples, st.floats(0.01, 0.98))
@settings(max_examples=50, deadline=None)
def test_more_found_more_certain_and_fewer_looked_at_raise_the_bound(numbers, confidence):
    found, sample = numbers
    bound = upper_bound(found, sample, confidence)
    assert upper_bound(found + 1, sample, confidence) >= bound
    assert upper_bound(found, sample + 1, confidence) <= bound
    assert upper_bound(found, sample, confidence + 0.01) >= bound


@pytest.mark.parametrize(("found", "sample"), [(-1, 10), (11, 10), (0, -1), (-2, -1)])
def test_numbers_that_cannot_be_are_refused(found, sample):
    with pytest.raises(ConfigurationError, match="cannot be"):
        upper_bound(found, sample)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, math.nan, math.inf])
def test_a_confidence_that_is_no_share_is_refused(confidence):
    with pytest.raises(ConfigurationError, match="confidence"):
        upper_bound(0, 600, confidence)


@pytest.mark.parametrize(
    ("share", "claim"),
    [
        (0.00498, "0.5 %"),
        (0.0123, "1.3 %"),
        (0.07, "7 %"),
        (0.071, "7.1 %"),
        (0.0701, "7.1 %"),
        (0.1, "10 %"),
        (0.101, "11 %"),
        (0.5, "50 %"),
        (0.9987, "100 %"),
        (1.0, "100 %"),
        (1, "100 %"),
        (0.000003, "0.0003 %"),
        (0.0, "0 %"),
    ],
)
def test_a_claim_is_short_and_rounded_up(share, claim):
    assert as_claim(share) == claim


@given(st.floats(1e-12, 1))
def test_a_claim_is_never_too_strong_and_hardly_too_weak(share):
    percent = Decimal(as_claim(share).removesuffix(" %"))
    exact = Decimal(repr(share)) * 100
    assert exact <= percent <= exact * Decimal("1.1")
    assert len(percent.as_tuple().digits) <= 2 or percent == 100

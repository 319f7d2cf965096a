"""Sizes day by day, and which change is sudden."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.braze_reads import SizeOfDay
from airflow_provider_heapbraze.clients.errors import ConfigurationError, UnclearAnswerError
from airflow_provider_heapbraze.membership.arguments import limit
from airflow_provider_heapbraze.segments.sizes import SizeHistory

FIRST_DAY = date(2026, 11, 1)


def history(*sizes, days_ago=0):
    days = [SizeOfDay(FIRST_DAY + timedelta(n), size) for n, size in enumerate(sizes)]
    return SizeHistory.of(days, FIRST_DAY + timedelta(len(sizes) - 1 + days_ago))


def test_no_day_is_no_history():
    with pytest.raises(UnclearAnswerError, match="no sizes of this segment: none yet"):
        history()


@pytest.mark.parametrize("days_ago", [-1, 0, 1, 2])
def test_today_is_not_the_same_day_everywhere(days_ago):
    assert history(5, 6, days_ago=days_ago).size == 6


@pytest.mark.parametrize("days_ago", [3, 400])
def test_a_series_that_ended_says_nothing_of_today(days_ago):
    """Where tracking is turned off, Braze goes on giving what it had."""
    with pytest.raises(UnclearAnswerError, match=r"none since 2026-11-02\. Nothing was recorded"):
        history(5, 6, days_ago=days_ago)


def test_the_first_day_has_nothing_to_be_compared_with():
    only = history(5)
    assert (only.size, only.usual, only.change) == (5, None, None)
    assert only.complaints(0.0, 0.0) == []
    assert only.as_dict() == {
        "size": 5,
        "day": "2026-11-01",
        "usual": None,
        "change": None,
        "series": {"2026-11-01": 5},
    }


def test_one_odd_day_is_not_usual():
    assert history(100, 3, 101, 99, 100).usual == 99.5
    assert history(100, 3, 101, 99, 100).complaints(0.01, 0.01) == []


@pytest.mark.parametrize(
    ("sizes", "drop", "rise", "complaint"),
    [
        ((100, 71), 0.29, 0.0, None),
        ((100, 70), 0.29, None, "30.0% fewer people than usual (max_drop_share=0.29)"),
        ((100, 129), 0.0, 0.29, None),
        ((100, 130), None, 0.29, "30.0% more people than usual (max_rise_share=0.29)"),
        ((100, 0), 1.0, None, None),
        ((100, 0), 0.99, None, "100.0% fewer people than usual (max_drop_share=0.99)"),
        ((100, 99), 0.0, None, "1.0% fewer people than usual (max_drop_share=0)"),
        ((100, 101), None, 0.0, "1.0% more people than usual (max_rise_share=0)"),
        ((100, 100), 0.0, 0.0, None),
        ((100, 10_000), None, None, None),
        ((100, 10_000), None, math.inf, None),
        ((0, 0), 0.0, 0.0, None),
        ((0, 0, 0, 5000), 0.5, None, None),
        ((0, 0, 0, 5000), 0.5, math.inf, None),
        ((0, 0, 0, 5000), None, 20.0, "5,000 people, and usually nobody (max_rise_share=20)"),
    ],
)
def test_a_limit_is_passed_or_not(sizes, drop, rise, complaint):
    assert history(*sizes).complaints(drop, rise) == ([complaint] if complaint else [])


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=10), st.floats(0, 10), st.floats(0, 1))
def test_any_history_is_json_and_at_most_one_complaint(sizes, rise, drop):
    some = history(*sizes)
    assert len(some.complaints(drop, rise)) <= 1
    assert json.loads(json.dumps(some.as_dict(), allow_nan=False))["size"] == sizes[-1]


@pytest.mark.parametrize(
    ("value", "most"),
    [
        (None, None),
        ("", None),
        (" ", None),
        ("None", None),
        (0, 0.0),
        ("0.5", 0.5),
        (" 2 ", 2.0),
        (3, 3.0),
        ("inf", math.inf),
    ],
)
def test_a_limit_may_come_from_a_template(value, most):
    assert limit(value, "max_drop_share") == most


@pytest.mark.parametrize(
    "value", ["nan", "NaN", math.nan, -0.1, "-1", "-inf", "a lot", "50%", [], {}, object()]
)
def test_a_limit_that_is_none(value):
    with pytest.raises(ConfigurationError, match=r"max_drop_share must be a number of at least 0\. Nothing"):
        limit(value, "max_drop_share")

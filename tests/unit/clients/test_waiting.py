from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_heapbraze.clients.waiting import LONGEST_WAIT, retry_after, told_wait

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"retry-after": "7"}, 7.0),
        ({"RETRY-AFTER": " 7 "}, 7.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:14:20 -0000"}, 60.0),
        ({"Retry-After": "Tue, 14 Nov 2023 23:14:20 +0100"}, 60.0),
        ({"Retry-After": "Tuesday, 14-Nov-23 22:14:20 GMT"}, 60.0),
        ({"Retry-After": "Tue, 14 Nov 2023 22:00:00 GMT"}, 0.0),
        ({"Retry-After": "Tue, 14 Nov 2090 22:00:00 GMT"}, LONGEST_WAIT),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "86400"}, LONGEST_WAIT),
        ({"X-Ratelimit-Retry-After": "12"}, 12.0),
        ({"X-RateLimit-Retry-After": "12"}, 12.0),
        ({"x-ratelimit-retry-after": "99999"}, LONGEST_WAIT),
        ({"Retry-After": "soon", "X-Ratelimit-Retry-After": "12"}, 12.0),
    ],
)
def test_a_wait_is_read_in_every_form(headers, seconds):
    assert retry_after(headers, now=NOW) == seconds
    assert told_wait(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X-RateLimit-Reset": "1700000030"}, 30.0),
        ({"x-ratelimit-reset": "1700000030"}, 30.0),
        ({"X-RATELIMIT-RESET": "1700000030.5"}, 30.5),
        ({"X-RateLimit-Reset": "1699999990"}, 0.0),
        ({"X-RateLimit-Reset": "1800000000"}, LONGEST_WAIT),
        ({"X-RateLimit-Reset": "42"}, 42.0),
        ({"X-RateLimit-Reset": "3600"}, 3600.0),
        ({"X-RateLimit-Reset": "0"}, 0.0),
        ({"X-RateLimit-Reset": "-3"}, 0.0),
        ({"X-RateLimit-Reset": "1700000030", "Retry-After": "2"}, 2.0),
        ({"X-RateLimit-Reset": "1700000030", "Retry-After": "nonsense"}, 30.0),
    ],
)
def test_too_many_requests_waits_for_the_reset_where_nothing_else_is_told(headers, seconds):
    assert told_wait(headers, now=NOW) == seconds


def test_a_date_without_a_zone_is_in_utc_wherever_we_are(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after({"Retry-After": "Tue, 14 Nov 2023 22:14:20"}, now=NOW) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_reset_of_a_limit_is_no_wait_for_other_answers():
    assert retry_after({"X-RateLimit-Reset": "1700000030"}, now=NOW) is None


@pytest.mark.parametrize(
    "value", ["", "soon", "nan", "inf", "-inf", "12s", "Tue, 99 Nov 2023 22:14:20 GMT", "1,5", "\x00"]
)
@pytest.mark.parametrize("name", ["Retry-After", "X-Ratelimit-Retry-After", "X-RateLimit-Reset"])
def test_garbage_is_no_wait(name, value):
    assert told_wait({name: value}, now=NOW) is None


def test_without_headers_there_is_no_wait():
    assert told_wait({}, now=NOW) is None


@given(value=st.text(max_size=40) | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str))
@pytest.mark.parametrize("name", ["Retry-After", "X-Ratelimit-Retry-After", "X-RateLimit-Reset"])
def test_no_header_breaks_it_or_leads_out_of_range(name, value):
    seconds = told_wait({name: value}, now=NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_WAIT

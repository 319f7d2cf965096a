"""Times that a DAG's author gives."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.moments import moment

TEN = datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        TEN,
        datetime(2026, 1, 31, 10),  # noqa: DTZ001 - that is what is tried
        datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))),
        "2026-01-31T10:00:00+00:00",
        "2026-01-31T12:00:00+02:00",
        " 2026-01-31 10:00 \n",
        "2026-01-31T10:00:00Z",
    ],
)
def test_a_time_is_in_utc(value):
    assert (moment(value, "start"), moment(value, "start").utcoffset()) == (TEN, timedelta(0))


@pytest.mark.parametrize("value", ["2026-01-31", date(2026, 1, 31)])
def test_a_day_is_its_beginning(value):
    assert moment(value, "start") == datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, "None", "", " "])
def test_nothing_is_no_time(value):
    assert moment(value, "start") is None


@pytest.mark.parametrize(
    "value", ["yesterday", 7, 1.5, True, "2026-02-30", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59-01:00"]
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"^start must be a time like .* Nothing was sent\.$"):
        moment(value, "start")

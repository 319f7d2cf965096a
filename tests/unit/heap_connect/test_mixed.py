"""Columns of several types in one file: rare in dumps, and no reason to refuse them."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, date, datetime

import fastavro
import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.heap_connect import mixed
from tests.unit.heap_connect.dumping import MICROS, MILLIS, dumps_in

SECRET = "ann.secret@example.com"
MANY = ["null", "string", "long", "double", "boolean"]
TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)


@pytest.fixture
def dumps(tmp_path):
    return dumps_in(tmp_path).add(1, {"users": [{"user_id": 1, "odd": "a"}]})


def write(path, rows, **types):
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "r", "fields": fields}, rows, codec="snappy")


def test_a_value_of_several_types_is_text(dumps):
    values = ["text", 42, 2**53 + 1, 0.5, True, None, ""]
    rows = [{"user_id": number, "odd": value} for number, value in enumerate(values)]
    write(dumps.file(1, "users"), rows, user_id="long", odd=MANY)
    found = dict(dumps.find("SELECT user_id, odd FROM users", "user_id", "odd"))
    assert list(found.values()) == ["text", "42", str(2**53 + 1), "0.5", "true", None, ""]


def test_the_other_columns_of_its_file_are_what_they_are(dumps):
    row = {"user_id": 1, "n": 7, "x": 0.5, "yes": True, "seen": TIME, "day": date(2026, 1, 1), "name": "ann"}
    types = {"n": "int", "x": ["null", "float"], "yes": "boolean", "name": "string"}
    types |= {"seen": ["null", MILLIS], "day": {"type": "int", "logicalType": "date"}}
    write(
        dumps.file(1, "users"),
        [{**row, "odd": 1, "also": TIME}],
        user_id="long",
        odd=MANY,
        **types,
        also=["null", "string", MICROS],
    )
    sql = "SELECT *, typeof(n) AS kind FROM users"
    wanted = ["user_id", "n", "x", "yes", "seen", "day", "name", "kind", "also"]
    (found,) = dumps.find(sql, *wanted)
    when = (TIME.replace(tzinfo=None), date(2026, 1, 1))
    assert found == (1, 7, 0.5, True, *when, "ann", "INTEGER", "2026-01-01 10:00:00+00:00")


def test_a_column_that_is_not_needed_may_be_anything(dumps):
    rows = [{"user_id": 1, "odd": b"bytes", "identity": "ann"}]
    write(dumps.file(1, "users"), rows, user_id="long", odd=["null", "bytes", "long"], identity="string")
    assert dumps.find("SELECT identity FROM users", "identity") == [("ann",)]
    with pytest.raises(
        ConfigurationError, match=r"part-00000-0a1b-c000\.avro cannot be read.*Nothing was sent"
    ):
        dumps.find("SELECT odd FROM users", "odd")


def test_times_of_several_types(dumps):
    rows = [{"user_id": 1, "joindate": 1767261600}, {"user_id": 2, "joindate": "2026-01-01T10:00:00Z"}]
    write(dumps.file(1, "users"), rows, user_id="long", joindate=["null", "long", "string"])
    found = dumps.find("SELECT DISTINCT joindate FROM users", "joindate")
    assert found == [(TIME.replace(tzinfo=None),)]


@pytest.mark.parametrize("value", [1.5, True, "1.5", SECRET])
def test_ids_are_whole_numbers(dumps, value):
    rows = [{"user_id": "7", "odd": 1}, {"user_id": 8, "odd": 1}]
    write(dumps.file(1, "users"), rows, user_id=MANY, odd=MANY)
    assert dumps.find("SELECT user_id FROM users", "user_id") == [(7,), (8,)]
    write(dumps.file(1, "users"), [*rows, {"user_id": value, "odd": 1}], user_id=MANY, odd=MANY)
    with pytest.raises(ConfigurationError, match=r"user_id that is no whole number\. Nothing") as caught:
        dumps.find("SELECT user_id FROM users", "user_id")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("end", [-3, -40])
def test_a_damaged_file_is_never_an_empty_table(dumps, end):
    file = dumps.file(1, "users")
    write(file, [{"user_id": number, "odd": SECRET} for number in range(9)], user_id="long", odd=MANY)
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        dumps.find("SELECT odd FROM users", "odd")
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_memory_is_flat(tmp_path, monkeypatch):
    monkeypatch.setattr(mixed, "ROWS_AT_ONCE", 500)
    peaks = []
    for count in (2_000, 20_000):
        rows = ({"user_id": number, "odd": f"value {number}"} for number in range(count))
        write(tmp_path / "part.avro", rows, user_id="long", odd=MANY)
        fields = {"user_id": "long", "odd": MANY}
        tracemalloc.start()
        mixed.write_parquet(tmp_path / "part.avro", fields, {"user_id"}, 0, tmp_path / "part.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]

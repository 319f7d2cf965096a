"""Rows of a database: streamed, and of whatever types its driver gives."""

from __future__ import annotations

import datetime as dt
import math
import uuid
import weakref
from decimal import Decimal

import pyarrow as pa
import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import SqlMembers
from tests.unit.membership.members_conformance import Access, outcome

MEMBERS = SqlMembers("warehouse", "SELECT people")


class Chunk(list):
    """A list that can be watched."""

    __hash__ = object.__hash__


def texts_and_reasons(tmp_path, values):
    """Return what a column's values are as identifiers: the texts, and the reasons where there is none."""
    access = Access(["id"], [[(value,) for value in values]])
    result = match(MEMBERS, IdentityMapping("id"), access, tmp_path)
    identifiers, unmatched = outcome(result, tmp_path)
    return {value for _, value, _ in identifiers}, [row["reason"] for row in unmatched]


@pytest.mark.parametrize(
    ("values", "texts", "reasons"),
    [
        ([1, "1.0", 2.0, True, None], {"1", "1.0", "2", "true"}, ["blank"]),
        ([1.5, True, 1], {"1.5", "true", "1"}, []),
        ([2**70, -(2**63) - 1], {str(2**70), str(-(2**63) - 1)}, []),
        ([2**60 + 1, 0.5], {str(2**60 + 1), "0.5"}, []),
        ([Decimal(10) ** 40, Decimal("0.10")], {"1" + "0" * 40, "0.1"}, []),
        ([Decimal("12345678901234567890.50"), 1], {"12345678901234567890.5", "1"}, []),
        ([Decimal("NaN"), Decimal("Infinity"), Decimal(1)], {"1"}, ["not_finite", "not_finite"]),
        ([math.nan, "x", 2.0**53, 2**53 + 1], {"x", str(2**53 + 1)}, ["not_finite", "imprecise"]),
        ([b"ann", bytearray(b"bob"), memoryview(b"cid"), "dan"], {"ann", "bob", "cid", "dan"}, []),
        ([b"ann", b"\xff", "\ud800"], {"ann"}, ["not_text", "not_text"]),
        (["ann", "\ud800"], {"ann"}, ["not_text"]),
        ([b"ann", 1, b"\xff", "\ud800"], {"ann", "1"}, ["nested", "nested"]),
        ([uuid.UUID(int=5), None], {"00000000-0000-0000-0000-000000000005"}, ["blank"]),
        ([dt.date(2024, 1, 2), None], {"2024-01-02"}, ["blank"]),
        ([dt.datetime(2024, 1, 2, 3, tzinfo=dt.UTC)], {"2024-01-02 03:00:00+00"}, []),
        (
            [dt.date(2024, 1, 2), dt.datetime.fromisoformat("2024-01-02T03:00")],
            {"2024-01-02", "2024-01-02 03:00:00"},
            [],
        ),
        ([{"id": 1}, ["x"], ("x",), {"x"}, {}], set(), ["nested"] * 5),
        ([None, None], set(), ["blank", "blank"]),
    ],
)
def test_values_of_a_column(tmp_path, values, texts, reasons):
    assert texts_and_reasons(tmp_path, values) == (texts, reasons)


UTC_PAST = dt.datetime(2024, 1, 2, 3, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("kind", "values", "texts", "reasons"),
    [
        (
            pa.decimal256(60, 2),
            [Decimal(10) ** 40, Decimal("0.10"), None],
            {"1" + "0" * 40, "0.1"},
            ["blank"],
        ),
        (pa.decimal128(38, 4), [Decimal("42.0000"), Decimal("1.5000")], {"42", "1.5"}, []),
        (pa.decimal64(10, 2), [Decimal("42.00"), Decimal("0.50")], {"42", "0.5"}, []),
        (pa.float16(), [1.5, None, math.nan], {"1.5"}, ["blank", "not_finite"]),
        (pa.float32(), [1.5, 2.0**24], {"1.5"}, ["imprecise"]),
        (pa.float64(), [1.5, 2.0**53], {"1.5"}, ["imprecise"]),
        (pa.uint64(), [2**64 - 1, 0], {str(2**64 - 1), "0"}, []),
        (pa.bool_(), [True, False, None], {"true", "false"}, ["blank"]),
        (pa.large_string(), ["ann", "  ", None], {"ann"}, ["blank", "blank"]),
        (pa.string_view(), ["ann", " bob "], {"ann", "bob"}, []),
        (pa.dictionary(pa.int8(), pa.string()), ["ann", "ann", "bob"], {"ann", "bob"}, []),
        (pa.large_binary(), [b"ann", b"\xff"], {"ann"}, ["not_text"]),
        (pa.timestamp("ns"), [dt.datetime.fromisoformat("2024-01-02T03:00")], {"2024-01-02 03:00:00"}, []),
        (pa.timestamp("ns", "America/New_York"), [UTC_PAST], {"2024-01-02 03:00:00+00"}, []),
        (pa.date32(), [dt.date(2024, 1, 2)], {"2024-01-02"}, []),
        (pa.list_(pa.string()), [["x"], [], None], set(), ["nested", "nested", "blank"]),
        (pa.struct({"id": pa.int8()}), [{"id": 1}, None], set(), ["nested", "blank"]),
        (pa.map_(pa.string(), pa.string()), [[("a", "b")]], set(), ["nested"]),
        (pa.null(), [None], set(), ["blank"]),
    ],
)
def test_values_of_an_arrow_column(tmp_path, kind, values, texts, reasons):
    access = Access(["id"], [pa.table({"id": pa.array(values, kind)})])
    result = match(MEMBERS, IdentityMapping("id"), access, tmp_path)
    identifiers, unmatched = outcome(result, tmp_path)
    assert {value for _, value, _ in identifiers} == texts
    assert [row["reason"] for row in unmatched] == reasons


def test_rows_are_streamed(tmp_path):
    """At no time more than two chunks: the one that is matched and the one that is fetched."""
    alive = weakref.WeakSet()
    most = 0

    def chunks():
        nonlocal most
        for start in range(0, 200_000, 5000):
            chunk = Chunk((f"user-{n}" if n % 1000 else "", "x" * 100) for n in range(start, start + 5000))
            alive.add(chunk)
            most = max(most, len(alive))
            yield chunk

    result = match(MEMBERS, IdentityMapping(), Access(["identity", "notes"], chunks()), tmp_path)
    _, unmatched = outcome(result, tmp_path)
    assert most <= 2
    assert result.counts["external_id"] == 199_800
    assert [row["row"] for row in unmatched] == list(range(1, 200_000, 1000))


def test_the_type_of_a_column_may_change_between_chunks(tmp_path):
    chunks = [[(1,), (2,)], [(None,)], [("1",), ("x",)], [(2.0,)]]
    result = match(MEMBERS, IdentityMapping("id"), Access(["id"], chunks), tmp_path)
    identifiers, _ = outcome(result, tmp_path)
    assert sorted(value for _, value, _ in identifiers) == ["1", "2", "x"]
    assert result.counts["duplicates"] == 2


def test_the_same_column_twice(tmp_path):
    access = Access(["id", "name", "id"], [[("ann", "Ann", "bob")]])
    with pytest.raises(ConfigurationError, match="The query of SqlMembers has 2 columns 'id'"):
        match(MEMBERS, IdentityMapping("id"), access, tmp_path)


def test_names_in_capitals_as_some_databases_give_them(tmp_path):
    access = Access(["IDENTITY"], [[("ann",)]])
    assert match(MEMBERS, IdentityMapping(), access, tmp_path).counts["external_id"] == 1

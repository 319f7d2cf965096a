"""The rule in SQL decides as the rule in plain Python, for whatever values and mappings there are."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import SqlMembers
from airflow_provider_heapbraze.membership.values import WHITE_SPACE
from tests.unit.membership import matching_reference as reference
from tests.unit.membership.members_conformance import Access, outcome, table

ROLES = ("external_id", "alias_name", "device_id", "identified")
SPACES = st.text(WHITE_SPACE, max_size=3)
TEXTS = st.one_of(
    st.text(max_size=4),
    st.sampled_from(["ann", "Ann", "bob", "a\u0300", "\u0300a", "", "\x00", "\ufeff"]),
    st.integers(984, 990).map(lambda size: "x" * size),
    st.integers(491, 496).map(lambda size: "é" * size),
)
FLAGS = st.sampled_from(
    [
        *(
            "true",
            "FALSE",
            "f",
            "No",
            "n",
            "NULL",
            "none",
            "0",
            "0.0",
            "-0",
            "0e5",
            "1",
            "1e-400",
            "2024-01-01",
        ),
        *("yes", "nan", "NaT", "inf", "off", "İ"),
    ]
)
COLUMNS = st.sampled_from(
    [
        st.tuples(SPACES, TEXTS | FLAGS, SPACES).map("".join),
        st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.booleans(),
        st.decimals(min_value=-1000, max_value=1000, places=2)
        | st.sampled_from([Decimal("NaN"), Decimal(10) ** 40]),
        st.binary(max_size=3) | TEXTS.map(str.encode),
        st.one_of(TEXTS, st.integers(), st.floats(), st.booleans(), st.just({"id": 1}), st.just(["x"])),
    ]
)


@st.composite
def segments(draw):
    """Rows whose columns each have a type of their own, or several; and a mapping that fits them."""
    length = draw(st.integers(0, 8))
    columns = {
        role: draw(st.lists(st.none() | values, min_size=length, max_size=length))
        for role in ROLES
        for values in [draw(COLUMNS)]
    }
    mapped = draw(st.sets(st.sampled_from(ROLES), min_size=1).filter(lambda roles: roles != {"identified"}))
    names = {role: role if role in mapped else None for role in ROLES}
    mapping = IdentityMapping(**names, alias_label="it's" if "alias_name" in mapped else None)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], mapping


@settings(max_examples=40, deadline=None)
@given(segments())
@example(([{"external_id": " \ud800", "alias_name": None}], IdentityMapping("external_id")))
def test_sql_decides_as_python(segment):
    rows, mapping = segment
    rows = [{name: surrogates_as_bytes(value) for name, value in row.items()} for row in rows]
    names = list(rows[0]) if rows else list(ROLES)
    cells = [tuple(row.values()) for row in rows]
    members, access = SqlMembers("warehouse", "SELECT people"), Access(names, [cells[:3], cells[3:]])
    with tempfile.TemporaryDirectory() as folder:
        result = match(members, mapping, access, Path(folder))
        identifiers, unmatched = outcome(result, Path(folder))
        others = [tuple(row.values()) for row in table(result, Path(folder), "others")]
    expected, expected_others, reasons, counts = reference.match(rows, mapping)
    assert sorted(identifiers) == sorted(expected)
    assert sorted(others) == sorted(expected_others)
    assert [(row["row"], row["reason"]) for row in unmatched] == reasons
    assert result.counts == counts


def surrogates_as_bytes(value):
    return value.encode(errors="surrogatepass") if isinstance(value, str) and "\ud800" in value else value


def test_white_space_is_what_python_strips():
    assert set(WHITE_SPACE) == {character for character in map(chr, range(0x110000)) if not character.strip()}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # Identified: external id, then alias, never the device.
        ({"id": "ann", "alias": "a", "device": "d", "known": True}, ("external_id", "ann")),
        ({"id": None, "alias": "a", "device": "d", "known": True}, ("alias", "a")),
        ({"id": None, "alias": None, "device": "d", "known": True}, "identified_without_id"),
        ({"id": "x" * 988, "alias": None, "device": "d", "known": True}, "too_long"),
        ({"id": "x" * 988, "alias": "a", "device": "d", "known": True}, ("alias", "a")),
        ({"id": None, "alias": "x" * 988, "device": "d", "known": True}, "too_long"),
        # Anonymous: external id, then device, then alias.
        ({"id": "ann", "alias": "a", "device": "d", "known": False}, ("external_id", "ann")),
        ({"id": None, "alias": "a", "device": "d", "known": False}, ("device_id", "d")),
        ({"id": None, "alias": "a", "device": " ", "known": None}, ("alias", "a")),
        ({"id": None, "alias": None, "device": "", "known": None}, "blank"),
        ({"id": None, "alias": "a", "device": "x" * 988, "known": False}, ("alias", "a")),
        ({"id": None, "alias": None, "device": "x" * 988, "known": False}, "too_long"),
    ],
)
def test_order_of_identifiers(tmp_path, row, expected):
    mapping = IdentityMapping("id", "alias", "label", "device", "known")
    assert decided(tmp_path, row, mapping) == expected


@pytest.mark.parametrize(
    ("mapping", "row", "expected"),
    [
        # Without the column: who has an external id, usable or not, is identified.
        (IdentityMapping("id", device_id="device"), {"id": "x" * 988, "device": "d"}, "too_long"),
        (IdentityMapping("id", device_id="device"), {"id": ["x"], "device": "d"}, "nested"),
        (IdentityMapping("id", device_id="device"), {"id": " ", "device": "d"}, ("device_id", "d")),
        # Not a number is how missing numbers come.
        (IdentityMapping("id", device_id="device"), {"id": float("nan"), "device": "d"}, ("device_id", "d")),
        (IdentityMapping("id", device_id="device"), {"id": float("nan"), "device": ""}, "not_finite"),
        # An alias tells only where no external id is mapped.
        (IdentityMapping(None, "alias", "label", "device"), {"alias": "a", "device": "d"}, ("alias", "a")),
        (IdentityMapping(None, "alias", "label", "device"), {"alias": "a" * 988, "device": "d"}, "too_long"),
        (
            IdentityMapping("id", "alias", "label", "device"),
            {"id": "", "alias": "a", "device": "d"},
            ("device_id", "d"),
        ),
        (IdentityMapping(None, device_id="device"), {"device": "d"}, ("device_id", "d")),
    ],
)
def test_who_is_identified_where_no_column_tells(tmp_path, mapping, row, expected):
    assert decided(tmp_path, row, mapping) == expected


@pytest.mark.parametrize(
    ("flag", "identified"),
    [
        *(
            (flag, True)
            for flag in (True, 1, -1, 0.5, "true", "YES", "1", " t ", "2024-01-01", ["x"], 2.0**60)
        ),
        *(
            (flag, False)
            for flag in (
                None,
                False,
                0,
                0.0,
                "",
                " ",
                "0",
                "0.00",
                "No",
                "f",
                "FALSE",
                "null",
                float("nan"),
                "NaT",
            )
        ),
    ],
)
def test_what_says_that_a_row_is_identified(tmp_path, flag, identified):
    mapping = IdentityMapping(None, device_id="device", identified="known")
    expected = "identified_without_id" if identified else ("device_id", "d")
    assert decided(tmp_path, {"device": "d", "known": flag}, mapping) == expected


def decided(tmp_path, row, mapping):
    """Return (kind, value) of one row, or its reason."""
    access = Access(list(row), [[tuple(row.values())]])
    result = match(SqlMembers("warehouse", "SELECT people"), mapping, access, tmp_path)
    identifiers, unmatched = outcome(result, tmp_path)
    assert len(identifiers) + len(unmatched) == 1
    return identifiers[0][:2] if identifiers else unmatched[0]["reason"]

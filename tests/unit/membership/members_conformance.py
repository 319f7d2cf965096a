"""What every source of members must do: the same members in, the same match out."""

from __future__ import annotations

import math
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match
from tests.unit.membership import matching_reference as reference

MAPPING = IdentityMapping(
    external_id="identity",
    alias_name="email",
    alias_label="email address",
    device_id="device",
    identified="known",
)
PEOPLE = [
    {"identity": "ann", "email": "ann@example.com", "device": "phone-1", "known": "true"},
    {"identity": " ann\u00a0", "email": None, "device": None, "known": "1"},  # once more
    {"identity": "", "email": "bob@example.com", "device": "phone-2", "known": "yes"},
    {"identity": None, "email": "cid@example.com", "device": "phone-3", "known": "no"},
    {"identity": "  ", "email": None, "device": "phone-4", "known": "true"},  # never by device
    {"identity": None, "email": "dan@example.com", "device": "\t", "known": "0"},
    {"identity": None, "email": None, "device": None, "known": None},
    {"identity": "e" * 988, "email": None, "device": "phone-5", "known": "true"},
    {"identity": "e" * 988, "email": "eve@example.com", "device": "phone-6", "known": "false"},
    {"identity": 'fa"y, \n「フェイ」', "email": None, "device": None, "known": "t"},
    {"identity": "42.0", "email": None, "device": None, "known": "f"},
]
FINGERPRINT = "47a43792d51c6868f7d5820908995730"
TYPED = {
    "whole": ([42, 0, -7, 2**53 + 1, None], ["42", "0", "-7", "9007199254740993", None]),
    "floating": ([42.0, 0.5, 1e3, -0.0, 1e-7], ["42", "0.5", "1000", "0", "1e-07"]),
    "too large for floating": (
        [2.0**53, -1e300, 2.0**53 - 1],
        [{"imprecise"}, {"imprecise"}, "9007199254740991"],
    ),
    "not finite": ([math.nan, math.inf, -math.inf], [{"not_finite"}] * 3),
    "decimal": ([Decimal("42.00"), Decimal("1.50"), Decimal(100)], ["42", "1.5", "100"]),
    "fraction": ([Decimal("0.50"), Decimal("-0.25"), Decimal("0.00")], ["0.5", "-0.25", "0"]),
    "flag": ([True, False], ["true", "false"]),
    "object": ([{"id": "x"}, None], [{"nested"}, None]),
    "list": ([["x"], []], [{"nested"}, {"nested"}]),
    "case and accents": (["ÀB", "a\u0300b"], ["ÀB", "a\u0300b"]),
    "longest": (["é" * 493 + "x", "é" * 494], ["é" * 493 + "x", {"too_long"}]),
}


class Access:
    """Files by their paths, and the rows of a query in the chunks that a test made."""

    def __init__(self, names=(), chunks=(), path=Path):
        self.path = path
        self._result = list(names), chunks

    @contextmanager
    def query(self, conn_id, sql):
        assert (conn_id, sql) == ("warehouse", "SELECT people")
        names, chunks = self._result
        yield names, iter(chunks)


def table(result, ledger, name):
    """Return the rows of a match's table, as they are in the ledger."""
    return pq.read_table(ledger / "matches" / result.fingerprint / result.file_of(name)).to_pylist()


def outcome(result, ledger):
    """Return (identifiers, unmatched rows) of a match."""
    identifiers = [tuple(row.values()) for row in table(result, ledger, "identifiers")]
    return identifiers, table(result, ledger, "unmatched")


class MembersConformance:
    """Inherit it, and say how rows become a source."""

    def source(self, folder, names, rows):
        """Return (members, access) for rows, which are dicts of these names."""
        raise NotImplementedError

    def match(self, tmp_path, names, rows, mapping=MAPPING):
        folder = tmp_path / "source"
        folder.mkdir()
        members, access = self.source(folder, names, rows)
        result = match(members, mapping, access, tmp_path / "ledger")
        return result, *outcome(result, tmp_path / "ledger")

    def test_same_members_same_match(self, tmp_path):
        result, identifiers, unmatched = self.match(tmp_path, list(PEOPLE[0]), PEOPLE)
        expected, others, reasons, counts = reference.match(PEOPLE, MAPPING)
        assert sorted(identifiers) == sorted(expected)
        assert [(row["row"], row["reason"]) for row in unmatched] == reasons
        found = [tuple(row.values()) for row in table(result, tmp_path / "ledger", "others")]
        assert sorted(found) == sorted(others)
        assert result.counts == counts
        assert counts["unmatched"] == {"identified_without_id": 1, "blank": 1, "too_long": 1}
        # The very same in every source: what came, and what it is called.
        assert result.fingerprint == FINGERPRINT

    def test_nobody(self, tmp_path):
        result, identifiers, unmatched = self.match(tmp_path, list(PEOPLE[0]), [])
        assert (identifiers, unmatched) == ([], [])
        assert result.counts["members"] == 0

    def test_other_columns_do_not_matter(self, tmp_path):
        rows = [{"notes": "a,b", **person, "c0": "x", "row": "7"} for person in PEOPLE]
        result, _, _ = self.match(tmp_path, list(rows[0]), rows)
        assert result.counts == reference.match(PEOPLE, MAPPING)[3]

    def test_columns_may_have_any_name(self, tmp_path):
        names = ['it\'s "the" id', "$.*", "c0", "a/b~c"]
        rows = [dict(zip(names, person.values(), strict=True)) for person in PEOPLE]
        mapping = IdentityMapping(names[0], names[1], "email address", names[2], names[3])
        result, _, _ = self.match(tmp_path, names, rows, mapping)
        assert result.counts == reference.match(PEOPLE, MAPPING)[3]

    def test_one_column_may_have_two_roles(self, tmp_path):
        mapping = IdentityMapping(external_id="identity", identified="identity", device_id="device")
        rows = [{"identity": "", "device": "phone-1"}, {"identity": "ann", "device": "phone-2"}]
        _, identifiers, _ = self.match(tmp_path, ["identity", "device"], rows, mapping)
        assert sorted(identifiers) == [("device_id", "phone-1", ""), ("external_id", "ann", "")]

    def test_a_missing_column_is_named_beside_those_that_exist(self, tmp_path):
        rows = [{"user": "ann", "phone": "phone-1"}]
        with pytest.raises(ConfigurationError, match=r"no column 'identity'.* Its columns: phone, user\."):
            self.match(tmp_path, ["user", "phone"], rows, IdentityMapping())


class TypedMembersConformance(MembersConformance):
    """For a source that knows numbers from texts."""

    @pytest.mark.parametrize("case", TYPED)
    def test_values_of_every_type(self, tmp_path, case):
        values, expected = TYPED[case]
        rows = [{"identity": value} for value in values]
        _, identifiers, unmatched = self.match(tmp_path, ["identity"], rows, IdentityMapping())
        assert {value for _, value, _ in identifiers} == {text for text in expected if isinstance(text, str)}
        reasons = [text or {"blank"} for text in expected if not isinstance(text, str)]
        assert [{row["reason"]} for row in unmatched] == reasons

"""What every source of members must do, whatever it is: the same segment in, the same match out.

A segment is given as a list of values of one column, ``identity``: all that every source can hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.matching import match
from tests.unit.membership.members_conformance import outcome

PROJECT = Path(__file__).resolve().parents[3]
COMPOSED = "Zoë Brontë"
SEGMENT = [
    "ann",
    "Ann",
    COMPOSED,
    unicodedata.normalize("NFD", COMPOSED),
    "👩‍👩‍👧 family",
    "שלום עולם",
    "\u202bمرحبا\u202c",  # noqa: RUF001 - Arabic, and not a Latin letter that looks like it
    "フェイ",
    "a" * 255,
    "é" * 255,
    "👍" * 246,  # 984 bytes
    "fa\"y, O'Neil; -- \\ /* */ %s {x}",
    "two  words\ttab",
    "007",
    "42.0",
    "1e3",
    "true",
    "null",
    "2024-01-02",
    "[1]",
    '{"id": "x"}',
]
FINGERPRINT = "8a28fb212db1f37bcab0c752566affc8"
SECRET = "ann.secret@example.com"

FEW, MANY = 200_000, 1_000_000


class SegmentConformance:
    """Inherit it, and say how a segment becomes a source.

    DuckDB takes what the machine has; held to ``duckdb_memory`` it uses the disk, and what is left is the
    source's own. 800,000 members more may then take ``most_growth_mib``: DuckDB fills what it is given (30
    MiB), and their texts, held in memory as an Arrow table at least, would be 43 MiB on top.
    """

    duckdb_memory = "80MB"
    most_growth_mib = 56

    def source(self, folder, identities):
        """Return (members, access) for a list of texts; the folder is the source's own."""
        raise NotImplementedError

    def unreadable(self, folder):
        """Return ways in which the source cannot be read, as a dict of name to (members, access).

        What is there may hold ``SECRET``.
        """
        raise NotImplementedError

    def write_many(self, folder, count):
        """Write down a segment of :func:`many_identities`, or of as many :func:`many_identity`."""

    def many(self, folder, count):
        """Return (members, access) of what was written down; called in another process."""
        raise NotImplementedError

    def match(self, tmp_path, identities):
        folder = tmp_path / "source"
        folder.mkdir()
        members, access = self.source(folder, identities)
        result = match(members, IdentityMapping(), access, tmp_path / "ledger")
        found, unmatched = outcome(result, tmp_path / "ledger")
        assert unmatched == []
        return result, sorted(found)

    def test_same_segment_same_members(self, tmp_path):
        result, found = self.match(tmp_path, SEGMENT)
        assert found == sorted(("external_id", identity, "") for identity in SEGMENT)
        assert result.counts["members"] == len(SEGMENT)
        assert result.fingerprint == FINGERPRINT

    def test_the_order_does_not_matter(self, tmp_path):
        assert self.match(tmp_path, SEGMENT[::-1])[0].fingerprint == FINGERPRINT

    def test_nobody_is_a_segment(self, tmp_path):
        result, found = self.match(tmp_path, [])
        assert (result.counts["members"], found) == (0, [])

    def test_duplicates_are_one_person(self, tmp_path):
        result, found = self.match(tmp_path, ["ann", "bob", "ann", "cid", "bob", "ann"])
        assert [value for _, value, _ in found] == ["ann", "bob", "cid"]
        assert result.counts["members"] == result.counts["matched"] + result.counts["duplicates"]

    def test_taken_at_says_when(self, tmp_path):
        before = datetime.now(UTC) - timedelta(seconds=5)  # file systems and epochs cut fractions off
        taken_at = self.match(tmp_path, ["ann"])[0].taken_at
        assert taken_at.utcoffset() == timedelta(0)
        assert before <= taken_at <= datetime.now(UTC)

    def test_unreadable_is_never_an_empty_segment(self, tmp_path):
        ways = self.unreadable(tmp_path)
        assert ways
        for way, (members, access) in ways.items():
            with pytest.raises(HeapBrazeError, match="Nothing was sent") as caught:
                match(members, IdentityMapping(), access, tmp_path / "ledger")
            assert SECRET not in "".join(traceback.format_exception(caught.value)), way
            assert not (tmp_path / "ledger" / "matches").exists(), way

    def test_a_million_members_in_flat_memory(self, tmp_path):
        for count in (FEW, MANY):
            folder = tmp_path / str(count)
            folder.mkdir()
            self.write_many(folder, count)
        done = subprocess.run(
            [sys.executable, "-m", __name__, type(self).__module__, type(self).__name__, str(tmp_path)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        few, many = json.loads(done.stdout.splitlines()[-1])
        assert (few["matched"], many["matched"]) == (FEW, MANY)
        assert many["peak_mib"] - few["peak_mib"] < self.most_growth_mib, done.stdout


def many_identities(count):
    """Return SQL, the same for DuckDB and Postgres, that gives so many members of 50 characters each."""
    return (
        "SELECT repeat('member-', 5) || lpad(CAST(n AS VARCHAR), 15, '0') AS identity "
        f"FROM generate_series(1, {count}) AS numbers(n)"
    )


def many_identity(number):
    """Return one of them, made in Python."""
    return f"{'member-' * 5}{number:015}"


def measure(module, name, folder):
    """Match the few, then the many; print how many matched, and the highest memory until then."""
    import resource
    from importlib import import_module

    from airflow_provider_heapbraze.membership import tables

    source = getattr(import_module(module), name)()
    tables.SETTINGS |= {"memory_limit": source.duckdb_memory, "threads": "2"}
    seen = []
    for count in (FEW, MANY):
        members, access = source.many(folder / str(count), count)
        result = match(members, IdentityMapping(), access, folder / "ledger")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seen.append({"matched": result.counts["matched"], "peak_mib": peak})
    sys.stdout.write(f"{json.dumps(seen)}\n")


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

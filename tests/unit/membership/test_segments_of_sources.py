"""Every source of members passes the same suite; those that need Airflow do so in ``tests/airflow``."""

from __future__ import annotations

import csv
import gzip
import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_heapbraze.membership.members import FileMembers, SqlMembers
from tests.unit.membership.members_conformance import Access
from tests.unit.membership.segment_conformance import (
    SECRET,
    SegmentConformance,
    many_identities,
    many_identity,
)


def unreadable_files(folder, damaged):
    """Return ways that hold for files of any format; ``damaged`` are contents by file name."""
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
    ways = {name: FileMembers(str(folder / name)) for name in damaged}
    (folder / "nothing").mkdir()
    ways["no file"] = FileMembers(str(folder / "nothing" / "*"))
    ways["no folder"] = FileMembers(str(folder / "nowhere"))
    return {way: (members, Access()) for way, members in ways.items()}


class FileConformance(SegmentConformance):
    """For a format; DuckDB writes the many."""

    name = ""
    options = ""

    def write_many(self, folder, count):
        with duckdb.connect() as database:
            target = f"'{folder / self.name}' ({self.options})"
            database.execute(f"COPY ({many_identities(count)}) TO {target}").fetchall()

    def many(self, folder, count):
        return FileMembers(str(folder / self.name)), Access()


class TestCsv(FileConformance):
    name = "members.csv"
    options = "FORMAT csv, HEADER"

    def source(self, folder, identities):
        with (folder / self.name).open("w", newline="") as opened:
            csv.writer(opened).writerows([["identity"], *([identity] for identity in identities)])
        return FileMembers(str(folder / self.name)), Access()

    def unreadable(self, folder):
        half = gzip.compress(b"identity\n" + SECRET.encode() * 1000)[:-20]
        return unreadable_files(
            folder,
            {
                "empty.csv": b"",
                "other-column.csv": f"name\n{SECRET}\n".encode(),
                "no-text.csv": f"identity\n{SECRET}\n".encode("utf-16"),
                "cut.csv": f'identity\nann\n"{SECRET}'.encode(),
                "cut.csv.gz": half,
            },
        )


class TestNdjson(FileConformance):
    name = "members.ndjson"
    options = "FORMAT json"

    def source(self, folder, identities):
        lines = [json.dumps({"identity": identity}) for identity in identities]
        (folder / self.name).write_text("\n".join(lines))
        return FileMembers(str(folder / self.name)), Access()

    def unreadable(self, folder):
        return unreadable_files(
            folder,
            {
                "other-key.ndjson": json.dumps({"name": SECRET}).encode(),
                "no-objects.ndjson": json.dumps([SECRET]).encode(),
                "cut.ndjson": f'{{"identity": "ann"}}\n{{"identity": "{SECRET}'.encode(),
            },
        )


class TestParquet(FileConformance):
    name = "members.parquet"
    options = "FORMAT parquet"

    def source(self, folder, identities):
        pq.write_table(pa.table({"identity": pa.array(identities, pa.string())}), folder / self.name)
        return FileMembers(str(folder / self.name)), Access()

    def unreadable(self, folder):
        pq.write_table(pa.table({"name": [SECRET] * 100}), folder / "other-column.parquet")
        pq.write_table(pa.table({"identity": [SECRET] * 100}), folder / "whole.parquet")
        whole = (folder / "whole.parquet").read_bytes()
        return unreadable_files(
            folder,
            {
                "empty.parquet": b"",
                "cut.parquet": whole[: len(whole) // 2],
                "end-only.parquet": b"PAR1" + whole[len(whole) // 2 :],
                "other-column.parquet": (folder / "other-column.parquet").read_bytes(),
            },
        )


class SqlConformance(SegmentConformance):
    """Rows or Arrow tables of a query, from a place without a database: chunks as a cursor gives them."""

    @staticmethod
    def chunk(identities):
        raise NotImplementedError

    def source(self, folder, identities):
        chunks = [self.chunk(identities[start : start + 4]) for start in range(0, len(identities), 4)]
        return SqlMembers("warehouse", "SELECT people"), Access(["IDENTITY"], chunks)

    def unreadable(self, folder):
        return {
            "other column": (
                SqlMembers("warehouse", "SELECT people"),
                Access(["name"], [self.chunk([SECRET])]),
            ),
            "twice": (
                SqlMembers("warehouse", "SELECT people"),
                Access(["identity", "identity"], [self.chunk([SECRET])]),
            ),
        }

    def many(self, folder, count):
        starts = range(0, count, 50_000)
        chunks = (self.chunk([many_identity(n) for n in range(start, start + 50_000)]) for start in starts)
        return SqlMembers("warehouse", "SELECT people"), Access(["identity"], chunks)


class TestRows(SqlConformance):
    @staticmethod
    def chunk(identities):
        return [(identity,) for identity in identities]


class TestArrow(SqlConformance):
    @staticmethod
    def chunk(identities):
        return pa.table([pa.array(identities, pa.string())], ["whatever"])

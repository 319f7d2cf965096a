"""Every source of members passes the same suite."""

from __future__ import annotations

import csv
import gzip
import json
from decimal import Decimal
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from airflow_provider_heapbraze.membership.members import FileMembers, SqlMembers
from tests.unit.membership.members_conformance import Access, MembersConformance, TypedMembersConformance


def write_csv(file, names, rows):
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, names)
        writer.writeheader()
        writer.writerows(rows)


class TestCsv(MembersConformance):
    def source(self, folder, names, rows):
        write_csv(folder / "members.csv", names, rows)
        return FileMembers(str(folder / "members.csv")), Access()


class TestCompressedCsv(MembersConformance):
    def source(self, folder, names, rows):
        write_csv(folder / "plain", names, rows)
        (folder / "Members.CSV.GZ").write_bytes(gzip.compress((folder / "plain").read_bytes()))
        return FileMembers(str(folder / "Members.CSV.GZ")), Access()


class TestNdjson(TypedMembersConformance):
    def source(self, folder, names, rows):
        lines = [json.dumps(row, default=float) for row in rows]
        (folder / "members.ndjson").write_text("\n".join(lines))
        return FileMembers(str(folder / "members.ndjson")), Access()


class TestParquet(TypedMembersConformance):
    def source(self, folder, names, rows):
        columns = {name: pa.array([row[name] for row in rows]) for name in names}
        if not rows:
            columns = {name: pa.array([], pa.string()) for name in names}
        pq.write_table(pa.table(columns), folder / "members.parquet")
        return FileMembers(str(folder / "members.parquet")), Access()


class TestFolderOfFiles(TypedMembersConformance):
    """A file per row, as a cluster writes them, and what such writers leave beside them."""

    def source(self, folder, names, rows):
        for number, row in enumerate(rows or [None]):
            columns = {name: pa.array([row[name]] if row else []) for name in names}
            (folder / "day=1").mkdir(exist_ok=True)
            pq.write_table(pa.table(columns), folder / "day=1" / f"part-{number:05d}.zstd.parquet")
        (folder / "_SUCCESS").touch()
        (folder / ".part-00000.crc").write_bytes(b"\0")
        (folder / "_temporary").mkdir()
        (folder / "_temporary" / "part-00000.parquet").write_bytes(b"half")
        return FileMembers(str(folder)), Access()


class TestObjectStore(TypedMembersConformance):
    def source(self, folder, names, rows):
        bucket = UPath(f"memory://{uuid4().hex}")
        for number, half in enumerate([rows[:6], rows[6:]]):
            lines = [json.dumps(row, default=float) for row in half]
            (bucket / f"day/part-{number}.jsonl").write_text("\n".join(lines))
        (bucket / "day/other.csv").write_text("not for us")
        return FileMembers(f"{bucket}/d*/*.jsonl"), Access(path=UPath)


class TestSql(TypedMembersConformance):
    def source(self, folder, names, rows):
        cells = [tuple(row[name] for name in names) for row in rows]
        chunks = [cells[start : start + 4] for start in range(0, len(cells), 4)]
        return SqlMembers("warehouse", "SELECT people"), Access(names, chunks)


class TestSqlOfSeveralTypes(TypedMembersConformance):
    """A driver that gives bytes for some texts, and decimals for some whole numbers."""

    def source(self, folder, names, rows):
        cells = [tuple(row[name] for name in names) for row in rows]
        cells[::2] = [tuple(map(self.other_type, row)) for row in cells[::2]]
        return SqlMembers("warehouse", "SELECT people"), Access(names, [cells])

    @staticmethod
    def other_type(value):
        if isinstance(value, str):
            return value.encode()
        return Decimal(value) if type(value) is int else value


class TestSqlInArrow(TypedMembersConformance):
    """A driver that gives Arrow tables, with names of its own for their columns."""

    def source(self, folder, names, rows):
        chunks = [
            pa.table([pa.array([row[name] for row in some]) for name in names], list(map(str, names)))
            for some in (rows[:4], rows[4:])
        ]
        return SqlMembers("warehouse", "SELECT people"), Access(names, chunks)

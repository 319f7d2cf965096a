"""Dumps as Heap Connect writes them, a few rows at a time, and what a query makes of them."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import duckdb
import fastavro

from airflow_provider_heapbraze.heap_connect.members import HeapConnectMembers
from airflow_provider_heapbraze.membership.tables import Workspace
from tests.unit.membership.members_conformance import Access

KINDS = {str: "string", int: "long", float: "double", bool: "boolean"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def avro_type(rows, name):
    kinds = {type(row.get(name)) for row in rows} - {type(None)}
    return KINDS[kinds.pop()] if kinds else "string"


def write_part(path, rows, types, codec="snappy"):
    """Write an Avro file; ``types`` are Avro types by column, each of them nullable."""
    fields = [{"name": name, "type": ["null", kind], "default": None} for name, kind in types.items()]
    schema = fastavro.parse_schema({"type": "record", "name": "topLevelRecord", "fields": fields})
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fastavro.writer(file, schema, rows, codec=codec)


@cache
def database():
    """Return a connection to read results by; opening one takes longer than all of a test."""
    return duckdb.connect()


class Dumps:
    """A folder of dumps; ``root`` may be in any storage."""

    def __init__(self, root):
        self.root = root

    def add(self, dump_id, tables, incremental=(), types=None):
        """Write a dump.

        :param tables: lists of rows by name, or lists of lists: one for each part.
        :param incremental: names of the tables that are.
        :param types: Avro types by column, or that by table, for what rows do not tell.
        """
        entries = []
        for name, rows in tables.items():
            parts = rows if rows and isinstance(rows[0], list) else [rows]
            given = (types or {}).get(name, types or {})
            names = dict.fromkeys([*given, *(column for part in parts for row in part for column in row)])
            everything = [row for part in parts for row in part]
            kinds = {column: given.get(column) or avro_type(everything, column) for column in names}
            files = []
            for number, part in enumerate(parts):
                file = f"sync_{dump_id}/{name}/part-{number:05d}-0a1b-c000.avro"
                write_part(self.root / file, part, kinds)
                files.append(f"s3://heap-rs3-acme/some/prefix/{file}")
            entries.append(
                {
                    "name": name,
                    "columns": list(names),
                    "files": files[::-1],
                    "incremental": name in incremental,
                }
            )
        return self.manifest(dump_id, entries)

    def manifest(self, dump_id, entries):
        path = self.root / "manifests" / f"sync_{dump_id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"dump_id": dump_id, "tables": entries, "property_definitions": []}))
        return self

    def file(self, dump_id, table, number=0):
        return self.root / f"sync_{dump_id}/{table}/part-{number:05d}-0a1b-c000.avro"

    def find(self, sql, *columns):
        """Return the members' rows, sorted."""
        members = HeapConnectMembers(str(self.root), sql)
        with tempfile.TemporaryDirectory() as folder:
            space = Workspace(database(), Path(folder))
            (part,) = members.parts(space, Access(path=lambda _: self.root), columns)
            self.taken_at = part.taken_at
            return sorted(space.ask(part.query), key=repr)


def dumps_in(tmp_path):
    return Dumps(Path(tmp_path) / "dumps")

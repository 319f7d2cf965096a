"""Heap Connect's dumps as a source of members like every other."""

from __future__ import annotations

import polars as pl

from airflow_provider_heapbraze.heap_connect.members import HeapConnectMembers
from tests.unit.heap_connect.dumping import Dumps
from tests.unit.membership.members_conformance import Access
from tests.unit.membership.segment_conformance import SECRET, SegmentConformance, many_identity

EVERYBODY = "SELECT identity FROM users"
PARTS = 10


def dumped(folder):
    return HeapConnectMembers(str(folder), EVERYBODY), Access()


class TestHeapConnect(SegmentConformance):
    def source(self, folder, identities):
        users = [{"user_id": number, "identity": identity} for number, identity in enumerate(identities)]
        types = {"user_id": "long", "identity": "string"}
        Dumps(folder).add(7, {"users": [users[:3], users[3:]]}, types=types)
        return dumped(folder)

    def unreadable(self, folder):
        sources = {}
        for way, spoil in {
            "a part is missing": lambda dumps: dumps.file(1, "users").unlink(),
            "a part is cut off": lambda dumps: halve(dumps.file(1, "users")),
            "a manifest is cut off": lambda dumps: halve(dumps.root / "manifests" / "sync_1.json"),
            "no manifest": lambda dumps: (dumps.root / "manifests" / "sync_1.json").unlink(),
        }.items():
            dumps = Dumps(folder / way).add(1, {"users": [{"user_id": 1, "identity": SECRET}]})
            spoil(dumps)
            sources[way] = dumped(dumps.root)
        other = Dumps(folder / "other table").add(1, {"purchase": [{"user_id": 1, "identity": SECRET}]})
        sources["no such table"] = dumped(other.root)
        changes = Dumps(folder / "changes").add(
            1, {"users": [{"user_id": 1, "identity": SECRET}]}, incremental=["users"]
        )
        sources["changes of nothing"] = dumped(changes.root)
        return sources

    def write_many(self, folder, count):
        size = count // PARTS
        files = [f"sync_1/users/part-{part:05d}-0a1b-c000.avro" for part in range(PARTS)]
        for part, file in enumerate(files):
            numbers = range(part * size, (part + 1) * size)
            users = pl.DataFrame({"user_id": numbers, "identity": [many_identity(n) for n in numbers]})
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            users.write_avro(folder / file, compression="snappy", name="users")
        entry = {"name": "users", "columns": ["user_id", "identity"], "incremental": False}
        Dumps(folder).manifest(1, [{**entry, "files": [f"s3://heap-rs3-acme/{file}" for file in files]}])

    def many(self, folder, count):
        return dumped(folder)


def halve(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

"""Segments Sync as a source of members like every other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from airflow_provider_heapbraze.segments_sync.members import SegmentSyncMembers
from airflow_provider_heapbraze.segments_sync.pages import landed_line, segment_folder
from tests.unit.membership.segment_conformance import SECRET, SegmentConformance, many_identity
from tests.unit.segments_sync.pushing import SEGMENT, drain, page

PAGE = 1000
IN_A_FILE = 10


class Access:
    """Paths, and a ledger of the source's own."""

    path = Path

    def __init__(self, folder):
        self.ledger = folder / "ledger"


def _some(webhooks):
    while some := list(islice(webhooks, IN_A_FILE)):
        yield some


def land(folder, webhooks):
    """Land webhooks as they arrive just now, some in a file; texts are landed as they are."""
    now = datetime.now(UTC)
    at = int(now.timestamp() * 1000)
    place = segment_folder(folder / "landed", SEGMENT) / f"date={now:%Y-%m-%d-%H}"
    place.mkdir(parents=True)
    for number, some in enumerate(_some(iter(webhooks))):
        bodies = (hook if isinstance(hook, bytes) else json.dumps(hook).encode() for hook in some)
        lines = [landed_line(body, received_at=at + i, sent_at=at + i) for i, body in enumerate(bodies)]
        (place / f"{at}-0000abcd-{number:08}.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))


def landed(folder):
    return SegmentSyncMembers(str(folder / "landed"), SEGMENT, wait_seconds=0), Access(folder)


class TestSegmentsSync(SegmentConformance):
    # A first sync of everybody is folded as a set, by DuckDB; twice their texts would not fit.
    duckdb_memory = "300MB"
    most_growth_mib = 128

    def source(self, folder, identities):
        halves = identities[:3], identities[3:]
        pages = [page("task", add=half, number=number, total=2) for number, half in enumerate(halves, 1)]
        land(folder, pages if identities else [page("task", add=["gone"]), drain()])
        return landed(folder)

    def unreadable(self, folder):
        whole = json.dumps(page("task", add=[SECRET])).encode()
        ways = {
            "a page is missing": [page("task", add=[SECRET], number=1, total=2)],
            "a page is cut off": [whole[: len(whole) // 2]],
            "no number of pages": [whole.replace(b'"total_pages": 1', b'"total_pages": "x"')],
            "no list of members": [
                page("task", add=[SECRET]),
                whole.replace(b'"add": [', b'"add": 1, "a": ['),
            ],
            "unknown action": [whole.replace(b"segment.users.sync", b"segment.users.other")],
        }
        sources = {}
        for number, (way, webhooks) in enumerate(ways.items()):
            land(folder / str(number), webhooks)
            sources[way] = landed(folder / str(number))
        sources["nothing has landed"] = landed(folder / "nowhere")
        return sources

    def write_many(self, folder, count):
        total = count // PAGE
        land(
            folder,
            (
                page(
                    "task",
                    add=[many_identity(n) for n in range(number * PAGE, (number + 1) * PAGE)],
                    number=number + 1,
                    total=total,
                )
                for number in range(total)
            ),
        )

    def many(self, folder, count):
        return landed(folder)

"""A landing path that tests write to as the landing service does, and what is folded out of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_heapbraze.membership.tables import workspace
from airflow_provider_heapbraze.segments_sync.members import SegmentSyncMembers
from airflow_provider_heapbraze.segments_sync.pages import landed_line, segment_folder

SEGMENT = 1338065
NIGHT = 1_790_000_000_000  # ms; times in tests are seconds after it
HOUR = 3600
BEFORE = datetime.fromtimestamp(NIGHT / 1000 - HOUR, UTC)  # full_since, where what follows is everybody


def moment(seconds):
    """Return seconds after NIGHT as a time."""
    return datetime.fromtimestamp(NIGHT / 1000 + seconds, UTC)


def page(task, add=(), remove=(), number=1, total=1):
    """Return a page's webhook; of ids that are texts, or whatever else a test wants."""
    return {
        "id_token": "CustomerIdToken",
        "action_type": "segment.users.sync",
        "data": {
            "segment": {"id": SEGMENT, "name": "Free Customers"},
            "sync_info": {"page_number": number, "total_pages": total, "sync_task_id": task},
            "remove": [{"id": value} for value in remove],
            "add": [{"id": value} for value in add],
        },
    }


def drain():
    return {
        "action_type": "segment.users.drain",
        "data": {"segment": {"id": SEGMENT, "name": "Free Customers"}},
    }


class HeldClock:
    """A clock that stands still but for sleeps; what happens meanwhile is handed in.

    :param now: seconds after NIGHT.
    """

    def __init__(self, now=0.0):
        self.seconds = NIGHT / 1000 + now
        self.slept = 0.0
        self.meanwhile = []

    def now(self):
        return self.seconds

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.slept += seconds
        self.seconds += seconds
        while self.meanwhile and self.meanwhile[0][0] <= self.slept:
            self.meanwhile.pop(0)[1]()


class Pushed:
    """One landing path with one ledger.

    :param root: a path with pathlib's interface.
    """

    def __init__(self, root):
        self.root = root
        self.path = type(root) if not isinstance(root, Path) else Path
        self.ledger = root / "ledger"
        self.folder = segment_folder(root / "landed", SEGMENT)
        self.clock = HeldClock(now=10 * HOUR)
        self._files = 0

    def land(self, webhook, at, sent_at=None):
        """Land one webhook, in a file of its own."""
        return self.land_file([(webhook, at, at if sent_at is None else sent_at)])

    def land_file(self, webhooks):
        """Land webhooks, each with the seconds of its arrival and signature, in one file."""
        times = [(body, NIGHT + round(at * 1000), NIGHT + round(sent * 1000)) for body, at, sent in webhooks]
        lines = [
            landed_line(json.dumps(body, indent=1).encode(), received_at=at, sent_at=sent)
            for body, at, sent in times
        ]
        return self.land_bytes(b"".join(line + b"\n" for line in lines), at=webhooks[0][1])

    def land_bytes(self, content, at):
        self._files += 1
        received = datetime.fromtimestamp(NIGHT / 1000 + at, UTC)
        file = (
            self.folder
            / f"date={received:%Y-%m-%d-%H}"
            / f"{NIGHT + round(at * 1000)}-0000abcd-{self._files:08d}.ndjson"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def source(self, **how):
        return SegmentSyncMembers(
            str(self.root / "landed"),
            **{"segment_id": SEGMENT, "clock": self.clock, "wait_seconds": 0, **how},
        )

    def fold(self, **how):
        """Return (the members' ids, sorted by their JSON; seconds after NIGHT of which they are)."""
        with workspace() as space:
            (part,) = self.source(**how).parts(space, self.access(), ["identity"])
            ids = [json.loads(value) for (value,) in space.ask(part.query)]
        return sorted(ids, key=json.dumps), round(part.taken_at.timestamp() - NIGHT / 1000, 3)

    def members(self, **how):
        return self.fold(**how)[0]

    def access(self):
        pushed = self

        class Access:
            ledger = pushed.ledger

            @staticmethod
            def path(uri):
                return pushed.path(uri)

        return Access()

    def record(self):
        """Return the ledger's files by their names, with their bytes."""
        return {
            str(path.relative_to(self.ledger)): path.read_bytes()
            for path in Path(self.ledger).rglob("*")
            if path.is_file()
        }


def warnings(caplog):
    """Return what was warned of."""
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

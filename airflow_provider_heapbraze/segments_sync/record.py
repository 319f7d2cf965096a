"""What is known of a pushed segment, in the user's own storage.

Per landing path and segment there is a folder::

    segment.json                        whom this is about
    log/00000001.json                   numbered entries: a snapshot, its counts and how far it reaches
    snapshots/<entry>-…-members.parquet id (JSON), said_at, task, present: who was added or removed last
    snapshots/<entry>-…-tasks.parquet   task, total, left_out, bodies: all tasks that have been decided, as
                                        digests; bodies are <page>:<digest>
    snapshots/<entry>-…-files.parquet   name: landed files that were read, as far as they are still listed
    pending/<entry>-….parquet           name, said_at, task, page, body: what runs saw that failed before they
                                        could fold it into this entry

An entry's place is taken by create-if-absent, after its snapshot is written. The log is kept; of the
snapshots the newest few are. What is pending is written beside what was, and goes when it is folded.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.ledger_folder import LedgerFolder, log_name
from airflow_provider_heapbraze.segments_sync.pages import START_ANEW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from airflow_provider_heapbraze.membership.tables import Workspace

TABLES = {
    "members": "id JSON, said_at BIGINT, task VARCHAR, present BOOLEAN",
    "tasks": "task VARCHAR, total BIGINT, left_out BOOLEAN, bodies VARCHAR[]",
    "files": "name VARCHAR",
}
PENDING = "name VARCHAR, said_at BIGINT, task VARCHAR, page BIGINT, body VARCHAR"
SNAPSHOTS_KEPT = 5
LATEST_ARRIVAL = 24 * 3_600_000  # ms; the landing answers within seconds, so nothing lands that late


@dataclass(frozen=True)
class Snapshot:
    """What is known under an entry of the log; times are UTC epoch milliseconds, 0 where there is none.

    :param number: of the entry; 0 before the first one.
    :param files: how the names of its files begin.
    :param rows: how many each table has.
    :param present: how many members there are.
    :param watermark: the newest hour of which pages were folded.
    :param drained_at: when the segment was last emptied; what was said until then has no effect.
    :param as_of: when the newest change arrived that was applied; 0 where none ever was.
    :param full_since: what was said before this time has no effect, either, since everybody was sent again.
    :param told_at: when the newest sync began that was applied.
    :param left_out_at: when the newest sync began that was left out.
    """

    number: int = 0
    files: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    present: int = 0
    watermark: int = 0
    drained_at: int = 0
    as_of: int = 0
    full_since: int = 0
    told_at: int = 0
    left_out_at: int = 0

    @property
    def started_at(self) -> int:
        """Return the time until which nothing that was said has an effect."""
        return max(self.drained_at, self.full_since - 1)

    @property
    def is_known(self) -> bool:
        """Tell whether it is known who is in the segment, be it nobody."""
        return self.told_at > self.started_at or 0 < self.drained_at == self.started_at

    @property
    def is_doubtful(self) -> bool:
        """Tell whether Heap may have others in the segment, since a sync was left out."""
        return self.left_out_at > self.started_at

    @property
    def since(self) -> int:
        """Return from when on pages may still arrive that are not folded."""
        return since(self.watermark)


def since(watermark: int) -> int:
    """Return from when on pages may still arrive, where those of this hour are folded."""
    return max(0, watermark - LATEST_ARRIVAL)


class SegmentLedger(LedgerFolder):
    """The record of one pushed segment.

    :param root: folder of all ledgers; a path with pathlib's interface.
    :param landing: location of all that has landed.
    """

    def __init__(self, root: Path, landing: str, segment_id: int) -> None:
        digest = hashlib.sha256(json.dumps([landing, segment_id]).encode()).hexdigest()[:12]
        super().__init__(
            root / "segment-syncs" / f"{segment_id}-{digest}",
            way_on="take the folder away, and the members are folded anew from the pages that are still in "
            f"the landing path; where some were deleted that is not everybody: {START_ANEW}.",
        )
        self._about = {"landing": landing, "segment_id": segment_id}

    def newest(self, space: Workspace) -> Snapshot:
        """Read the newest snapshot; make the views ``known_members``, ``known_tasks`` and ``known_files``.

        :raises LedgerDamagedError: it is missing or cannot be read.
        """
        number = self.last_number()
        for name in TABLES:
            space.sql(f"DROP VIEW IF EXISTS known_{name}")
        if not number:
            for name, schema in TABLES.items():
                space.sql(f"CREATE TABLE IF NOT EXISTS no_{name} ({schema})")
                space.sql(f"CREATE VIEW known_{name} AS SELECT * FROM no_{name}")
            return Snapshot()
        snapshot = self._snapshot(number)
        for name in TABLES:
            file = f"{snapshot.files}-{name}.parquet"
            if not space.load(f"known_{name}", self.path(file), rows=snapshot.rows[name]):
                raise self.not_as_logged(file)
        return snapshot if snapshot.told_at else _completed(snapshot, space)

    def pending(self, space: Workspace) -> list[str]:
        """Make the view ``pending`` of what failed runs saw; return the names of its files.

        :raises LedgerDamagedError: a file cannot be read.
        """
        space.sql(f"CREATE TABLE IF NOT EXISTS no_pending ({PENDING})")
        found, views = [], ["SELECT * FROM no_pending"]
        for path, _ in storage.listed(self.path("pending")):
            name = f"pending/{path.name}"
            if path.name[0] == ".":
                continue
            if space.load(view := f"pending_{uuid4().hex}", path):
                found.append(name)
                views.append(f"SELECT name, said_at, task, page, body FROM {view}")
            elif path.exists():  # else another run has folded it meanwhile
                raise self.damaged(f"{name} cannot be read")
        space.sql(f"CREATE OR REPLACE VIEW pending AS {' UNION ALL '.join(views)}")
        return found

    def add_pending(self, number: int, file: Path) -> None:
        """Write down what was seen and not folded.

        :param number: of the entry that should have come of it.
        :param file: on the local disk.
        """
        self.describe("segment.json", self._about)
        storage.write_whole(self.path(f"pending/{number:08d}-{uuid4().hex[:8]}.parquet"), file)

    def drop_pending(self, names: Iterable[str]) -> None:
        """Remove what has been folded."""
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def keep(self, snapshot: Snapshot, tables: Mapping[str, Path]) -> bool:
        """Write a snapshot down, and remove those that are too old.

        :param snapshot: with its number; its files are named here.
        :param tables: its files on the local disk.
        :returns: False where another run has taken its place in the log.
        """
        self.describe("segment.json", self._about)
        files = f"snapshots/{snapshot.number:08d}-{uuid4().hex[:8]}"
        for name, file in tables.items():
            storage.write_whole(self.path(f"{files}-{name}.parquet"), file)
        try:
            self.take_place(snapshot.number, {**asdict(snapshot), "files": files, "made_at": _now()})
        except FileExistsError:
            self._remove(files)
            return False
        for number in self._snapshots_before(snapshot.number - SNAPSHOTS_KEPT + 1):
            self._remove(f"snapshots/{number}")
        return True

    def _snapshot(self, number: int) -> Snapshot:
        record = self.read(log_name(number))
        record.pop("made_at", None)
        snapshot = None
        with suppress(TypeError):
            snapshot = Snapshot(**record)
        if snapshot is None or snapshot.number != number or snapshot.rows.keys() != TABLES.keys():
            raise self.not_as_logged(log_name(number))
        return snapshot

    def _snapshots_before(self, number: int) -> set[str]:
        found = (path.name[:8] for path, _ in storage.listed(self.path("snapshots")))
        return {name for name in found if name.isdigit() and int(name) < number}

    def _remove(self, beginning: str) -> None:
        for path, _ in storage.listed(self.path("snapshots")):
            if f"snapshots/{path.name}".startswith(f"{beginning}-"):
                path.unlink(missing_ok=True)


def _completed(snapshot: Snapshot, space: Workspace) -> Snapshot:
    """Return the snapshot of an entry that does not say when its syncs began, as far as its tables do."""
    ((told_at,),) = space.ask("SELECT max(said_at) FROM known_members")
    left_out = space.count("known_tasks WHERE left_out")
    return replace(
        snapshot,
        told_at=told_at or min(snapshot.as_of, 1),
        left_out_at=max(snapshot.as_of, snapshot.watermark) if left_out else 0,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

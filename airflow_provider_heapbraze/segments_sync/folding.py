"""Pages that were pushed, folded into the present members of a segment.

Every task has a time: the arrival of its first page. A member is in the segment if the last task that names
it adds it; where a task says both, it removes. A drain is a task that removes everybody whom tasks up to its
time have named. Of two tasks at the same millisecond the one with the greater digest is the later one:
nobody knows better, and every run decides alike. So nothing depends on the order in which pages are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.tables import literal
from airflow_provider_heapbraze.segments_sync.arrivals import Arrivals, hour_of
from airflow_provider_heapbraze.segments_sync.errors import IncompleteSyncError
from airflow_provider_heapbraze.segments_sync.record import Snapshot, since

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments_sync.record import SegmentLedger

LOOK_EVERY = 10.0  # seconds

# What landed of tasks that are not decided: of every page the first arrival, and the tasks that they make.
VIEWS = """
    CREATE OR REPLACE VIEW firsts AS
        SELECT DISTINCT ON (task, page) * FROM pages WHERE task NOT IN (SELECT task FROM known_tasks)
        ORDER BY task, page, received_at, body;
    CREATE OR REPLACE VIEW tasks AS
        SELECT task, min(received_at) AS began_at, max(received_at) AS newest_at, count(*) AS here,
            max(total) AS total, list(concat(page, ':', body)) AS bodies
        FROM firsts GROUP BY task;
"""
MERGED = """
    SELECT id, newest.said_at, newest.task, newest.present FROM (
        SELECT id, max({{'said_at': said_at, 'task': task, 'present': present}}) AS newest FROM (
            SELECT id, said_at, task, present FROM known_members
            UNION ALL SELECT id, said_at, task, present FROM changes
        ) GROUP BY id
    ) WHERE newest.said_at > {drained_at} AND (newest.present OR newest.said_at >= {since})
"""


@dataclass(frozen=True)
class Patience:
    """What to do about a task of which pages are missing.

    :param seconds: to wait for them since the task's newest page arrived.
    :param skip: leave it out after that, for good; else that is an error.
    """

    seconds: float
    skip: bool
    clock: Clock


@dataclass(frozen=True)
class Fold:
    """What a fold came to.

    :param members: SQL that gives the members as ``id``.
    :param snapshot: what is known now.
    :param tasks: how many were decided, drains among them.
    :param both: how many changes said both.
    :param left_out: how many tasks were left out now.
    :param late: how many pages came of tasks that had been left out.
    """

    members: str
    snapshot: Snapshot
    tasks: int = 0
    both: int = 0
    left_out: int = 0
    late: int = 0


def fold(space: Workspace, landed: Path, segment_id: int, ledger: SegmentLedger, patience: Patience) -> Fold:
    """Fold what has landed since the last time, and write down what is known now.

    :param landed: the segment's folder.
    :raises ConfigurationError: nothing ever landed, no task is complete, or a file cannot be read.
    :raises UnusablePageError: a webhook cannot be understood.
    :raises IncompleteSyncError: pages of a task are missing, and are to be waited for.
    :raises LedgerDamagedError: what was known cannot be read.
    """
    result = None
    while result is None:  # until no other run has written down the same, or more, meanwhile
        result = _Folding(space, landed, segment_id, ledger, patience).run()
    if not result.snapshot.as_of:
        raise ConfigurationError(
            f"No sync of segment {segment_id} has landed as a whole: who is in it is not known, which is not "
            "an empty segment. Nothing was sent. Start the segment's sync anew in Heap."
        )
    return result


class _Folding:
    """One try."""

    def __init__(
        self, space: Workspace, landed: Path, segment_id: int, ledger: SegmentLedger, patience: Patience
    ) -> None:
        self._space = space
        self._segment_id = segment_id
        self._ledger = ledger
        self._patience = patience
        self._known = ledger.newest(space)
        names = [name for (name,) in space.ask("SELECT name FROM known_files")]
        self._arrivals = Arrivals(space, landed, segment_id, self._known.since, names)
        space.sql(VIEWS)

    def run(self) -> Fold | None:
        """Return None where another run has taken the place in the ledger."""
        self._wait_for_pages()
        if not self._arrivals.files:
            if not self._known.number:
                raise self._nothing_landed()
            return Fold("SELECT id FROM known_members WHERE present", self._known)
        drained_at = self._drained_at()
        self._arrivals.changes(
            "SELECT task, page, body, began_at AS said_at FROM firsts JOIN tasks USING (task) "
            f"WHERE here = tasks.total AND began_at > {drained_at}"
        )
        watermark = self._watermark()
        members = self._write("members", MERGED.format(drained_at=drained_at, since=since(watermark)))
        present = f"SELECT id FROM read_parquet({literal(members)}) WHERE present"
        snapshot = Snapshot(
            number=self._known.number + 1,
            present=self._space.count(f"({present})"),
            watermark=watermark,
            drained_at=drained_at,
            as_of=self._as_of(drained_at),
        )
        incomplete = self._incomplete()
        if incomplete and not self._patience.skip:
            raise self._incomplete_error(incomplete, snapshot)
        tables = {"members": members, "tasks": self._decided(drained_at), "files": self._files(watermark)}
        rows = {name: self._space.count(f"read_parquet({literal(file)})") for name, file in tables.items()}
        if not self._ledger.keep(_with_rows(snapshot, rows), tables):
            return None
        return Fold(
            present,
            snapshot,
            tasks=self._space.count("tasks"),
            both=self._space.count("changes WHERE said_both"),
            left_out=len(incomplete),
            late=self._space.count("pages JOIN known_tasks USING (task) WHERE left_out"),
        )

    def _wait_for_pages(self) -> None:
        """Look until no task is incomplete, or its pages have been waited for long enough."""
        clock = self._patience.clock
        newest, since_when = 0, clock.now()
        while True:
            self._arrivals.look()
            incomplete = self._incomplete()
            if not incomplete:
                return
            arrived = max(task["newest_at"] for task in incomplete)
            if arrived > newest:
                # The landing's clock may be ahead of ours.
                newest, since_when = arrived, min(arrived / 1000, clock.now())
            left = since_when + self._patience.seconds - clock.now()
            if left <= 0:
                return
            clock.sleep(min(left, LOOK_EVERY))

    def _incomplete(self) -> list[dict[str, Any]]:
        """Return the tasks with missing pages; of one before a drain, nothing is missed."""
        names = ("task", "here", "total", "newest_at")
        rows = self._space.ask(
            f"SELECT {', '.join(names)} FROM tasks WHERE here < total AND began_at > {self._drained_at()} "
            "ORDER BY began_at, task"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _drained_at(self) -> int:
        ((newest,),) = self._space.ask("SELECT max(began_at) FROM tasks WHERE total = 0")
        return max(self._known.drained_at, newest or 0)

    def _as_of(self, drained_at: int) -> int:
        ((newest,),) = self._space.ask(
            f"SELECT max(newest_at) FROM tasks WHERE here = total AND began_at > {drained_at}"
        )
        return max(self._known.as_of, drained_at, newest or 0)

    def _watermark(self) -> int:
        """Return the newest hour, but none that is still to come: a clock may have been ahead."""
        newest = max(map(hour_of, self._arrivals.names))
        return max(self._known.watermark, min(newest, int(self._patience.clock.now() * 1000)))

    def _decided(self, drained_at: int) -> Path:
        return self._write(
            "tasks",
            "SELECT task, total, left_out, bodies FROM known_tasks UNION ALL "
            f"SELECT task, total, here < total AND began_at > {drained_at}, bodies FROM tasks",
        )

    def _files(self, watermark: int) -> Path:
        listed = [name for name in sorted(self._arrivals.names) if hour_of(name) >= since(watermark)]
        self._space.rows(table := f"files_{uuid4().hex}", "name VARCHAR", {"name": listed})
        return self._write("files", f"SELECT name FROM {table}")

    def _write(self, name: str, query: str) -> Path:
        file = self._space.folder / f"{name}-{uuid4().hex}.parquet"
        self._space.write(query, file)
        return file

    def _nothing_landed(self) -> ConfigurationError:
        return ConfigurationError(
            f"Nothing has landed for segment {self._segment_id}: it cannot be read, which is not an empty "
            "segment. Nothing was sent. Look at the segment's id, at the landing path, which must be the "
            "landing service's, and whether Heap's Segments Sync sends this segment's webhooks there."
        )

    def _incomplete_error(self, incomplete: list[dict[str, Any]], without: Snapshot) -> IncompleteSyncError:
        first = incomplete[0]
        more = f" (And {len(incomplete) - 1} more like it.)" if len(incomplete) > 1 else ""
        age = _span(self._patience.clock.now() - first["newest_at"] / 1000)
        known = f"has {without.present:,} members" if without.as_of else "is not known at all"
        return IncompleteSyncError(
            f"Sync task {first['task'][:8]} (a digest) of segment {self._segment_id} is incomplete: "
            f"{first['here']} of {first['total']} pages have landed, the newest {age} ago.{more} Nothing was "
            f"sent. Nothing of it was applied; without it the segment {known}. Heap sends pages again "
            "that were not taken: the next try looks for them. If they do not come, run once with "
            "on_incomplete='skip', which leaves the task out for good, and start the segment's sync anew in "
            "Heap."
        )


def _with_rows(snapshot: Snapshot, rows: dict[str, int]) -> Snapshot:
    return Snapshot(**{**vars(snapshot), "rows": rows})


def _span(seconds: float) -> str:
    """Return a time for people."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"

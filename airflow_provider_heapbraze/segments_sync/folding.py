"""Pages that were pushed, folded into the present members of a segment.

Every task has a time: the arrival of its first page. A member is in the segment if the last task that names
it adds it; where a task says both, it removes. A drain is a task that removes everybody whom tasks up to its
time have named. Of two tasks at the same millisecond the one with the greater digest is the later one:
nobody knows better, and every run decides alike. So nothing depends on the order in which pages are read.

Who is in the segment is known from its start on: its first sync, which sends everybody, or a drain, or a time
that the user names (``full_since``). Nothing is guessed before that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.membership.tables import literal
from airflow_provider_heapbraze.segments_sync import refusals
from airflow_provider_heapbraze.segments_sync.arrivals import Arrivals, end_of_hour, hour_of, name_of
from airflow_provider_heapbraze.segments_sync.record import Snapshot, since

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.segments_sync.record import SegmentLedger

LOOK_EVERY = 10.0  # seconds
# A drain whose answer was lost comes again, signed anew. How long Heap tries is not documented. It pushes
# about every four hours, so a second drain that is meant comes two pushes later: one has filled the segment.
DRAIN_REPEATS = 4 * 3_600_000  # ms since the drain that counts

# What landed of tasks that are not decided: of every page the first arrival, and the tasks that they make.
VIEWS = """
    CREATE OR REPLACE VIEW firsts AS
        SELECT DISTINCT ON (task, page) * FROM pages WHERE task NOT IN (SELECT task FROM known_tasks)
        ORDER BY task, page, received_at, body;
    CREATE OR REPLACE VIEW tasks AS
        SELECT task, min(received_at) AS began_at, max(received_at) AS newest_at, count(*) AS here,
            max(total) AS total, list(concat(page, ':', body)) AS bodies, list(page) AS numbers,
            arg_min(file, received_at) AS file,
            coalesce(any_value(label), left(task, 8) || ' (a digest)') AS label
        FROM firsts GROUP BY task;
"""
MERGED = """
    SELECT id, newest.said_at, newest.task, newest.present FROM (
        SELECT id, max({{'said_at': said_at, 'task': task, 'present': present}}) AS newest FROM (
            SELECT id, said_at, task, present FROM known_members
            UNION ALL SELECT id, said_at, task, present FROM changes
        ) GROUP BY id
    ) WHERE newest.said_at > {started_at} AND (newest.present OR newest.said_at >= {since})
"""

# Whom changes remove who was never added: where one sync says both, it adds.
REMOVED = "SELECT DISTINCT id FROM changes WHERE NOT present AND NOT said_both"
ADDED = "SELECT id FROM known_members UNION ALL SELECT id FROM changes WHERE present OR said_both"
# A failed run's pages that were neither read nor folded; some are in files that still lie there.
NOT_HERE = """
    SELECT name FROM pending WHERE said_at > {started_at}
        AND NOT EXISTS (FROM pages WHERE pages.task = pending.task AND pages.page = pending.page
            AND pages.body = pending.body)
        AND NOT EXISTS (FROM known_tasks WHERE known_tasks.task = pending.task
            AND list_contains(bodies, concat(pending.page, ':', pending.body)))
"""
SEEN = """
    SELECT name, task, page, body,
        coalesce(CASE WHEN problem IS NULL THEN began_at END, received_at, hour_ends) AS said_at
    FROM {names} LEFT JOIN pages USING (file) LEFT JOIN tasks USING (task)
"""


@dataclass(frozen=True)
class Rules:
    """What the DAG's author decided.

    :param wait_seconds: to wait for a task's missing pages since its newest one arrived.
    :param skip: leave it out after that, for good; else that is an error.
    :param full_since: UTC epoch milliseconds; what was said before has no effect. 0 where there is none.
    """

    wait_seconds: float
    skip: bool
    full_since: int
    clock: Clock


@dataclass(frozen=True)
class Fold:
    """What a fold came to.

    :param members: SQL that gives the members as ``id``.
    :param snapshot: what is known now.
    :param tasks: how many were decided, drains among them.
    :param both: how many changes said both.
    :param left_out: what Heap calls the tasks that were left out now.
    :param late: how many pages came of tasks that had been left out.
    :param unknown: how many people were removed who had never been added.
    :param drains_again: how many drains were taken for repetitions though a task had come in between.
    """

    members: str
    snapshot: Snapshot
    tasks: int = 0
    both: int = 0
    left_out: tuple[str, ...] = ()
    late: int = 0
    unknown: int = 0
    drains_again: int = 0


def fold(space: Workspace, landed: Path, segment_id: int, ledger: SegmentLedger, rules: Rules) -> Fold:
    """Fold what has landed since the last time, and write down what is known now.

    Where that fails, what was seen is written down instead: it must not go before it is folded.

    :param landed: the segment's folder.
    :raises ConfigurationError: nothing ever landed, or a file cannot be read.
    :raises UnusablePageError: a webhook cannot be understood.
    :raises LostPagesError: pages that a failed run saw are gone.
    :raises FirstSyncMissingError: what has landed does not begin with everybody.
    :raises IncompleteSyncError: pages of a task are missing, or all since ``full_since``.
    :raises LedgerDamagedError: what was known cannot be read.
    """
    result = None
    while result is None:  # until no other run has written down the same, or more, meanwhile
        folding = _Folding(space, landed, segment_id, ledger, rules)
        try:
            result = folding.run()
        except HeapBrazeError:
            folding.remember()
            raise
    return result


class _Folding:
    """One try."""

    def __init__(
        self, space: Workspace, landed: Path, segment_id: int, ledger: SegmentLedger, rules: Rules
    ) -> None:
        self._space = space
        self._landed = landed
        self._segment_id = segment_id
        self._ledger = ledger
        self._rules = rules
        self._known = ledger.newest(space)
        self._full_since = max(self._known.full_since, rules.full_since)
        self._pending = ledger.pending(space)
        names = [name for (name,) in space.ask("SELECT name FROM known_files")]
        self._arrivals = Arrivals(space, landed, segment_id, self._known.since, names)
        space.sql(VIEWS)

    def run(self) -> Fold | None:
        """Return None where another run has taken the place in the ledger."""
        self._wait_for_pages()
        self._refuse_where_lost()
        if not self._arrivals.files:
            if not self._known.number:
                raise refusals.nothing_landed(self._segment_id)
            if self._full_since == self._known.full_since:
                self._refuse_unknown(self._known)
                return Fold("SELECT id FROM known_members WHERE present", self._known)
        start = self._start()
        self._arrivals.changes(
            "SELECT task, page, body, began_at AS said_at FROM firsts JOIN tasks USING (task) "
            f"WHERE here = tasks.total AND began_at > {start.started_at}"
        )
        watermark = self._watermark()
        members = self._write("members", MERGED.format(started_at=start.started_at, since=since(watermark)))
        present = f"SELECT id FROM read_parquet({literal(members)}) WHERE present"
        incomplete = self._incomplete()
        snapshot = replace(
            self._told(start),
            number=self._known.number + 1,
            present=self._space.count(f"({present})"),
            watermark=watermark,
            left_out_at=max([self._known.left_out_at, *(task["began_at"] for task in incomplete)]),
        )
        self._refuse_incomplete(incomplete, snapshot)
        self._refuse_unknown(snapshot)
        unknown = self._unknown()
        if unknown and not self._known.told_at and not snapshot.started_at:
            raise refusals.first_sync_missing(self._segment_id, unknown)
        tables = {
            "members": members,
            "tasks": self._decided(snapshot.started_at),
            "files": self._files(watermark),
        }
        rows = {name: self._space.count(f"read_parquet({literal(file)})") for name, file in tables.items()}
        if not self._ledger.keep(replace(snapshot, rows=rows), tables):
            return None
        self._ledger.drop_pending(self._pending)
        return Fold(
            present,
            snapshot,
            tasks=self._space.count("tasks"),
            both=self._space.count("changes WHERE said_both"),
            left_out=tuple(task["label"] for task in incomplete),
            late=self._space.count("pages JOIN known_tasks USING (task) WHERE left_out"),
            unknown=unknown,
            drains_again=self._drains_again(snapshot.drained_at),
        )

    def remember(self) -> None:
        """Write down what was seen, as far as no failed run has before."""
        files = [name_of(file) for file in self._arrivals.files]
        self._space.rows(
            names := f"names_{uuid4().hex}",
            "file INTEGER, name VARCHAR, hour_ends BIGINT",
            {
                "file": range(len(files)),
                "name": files,
                "hour_ends": [end_of_hour(name) - 1 for name in files],
            },
        )
        seen = self._write("pending", SEEN.format(names=names))
        new = f"read_parquet({literal(seen)}) WHERE name NOT IN (SELECT name FROM pending)"
        if self._space.count(new):
            self._ledger.add_pending(self._known.number + 1, seen)

    def _wait_for_pages(self) -> None:
        """Look until no task is incomplete, or its pages have been waited for long enough."""
        clock = self._rules.clock
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
            left = since_when + self._rules.wait_seconds - clock.now()
            if left <= 0:
                return
            clock.sleep(min(left, LOOK_EVERY))

    def _incomplete(self) -> list[dict[str, Any]]:
        """Return the tasks with missing pages; of one before the start, nothing is missed."""
        names = ("task", "label", "here", "total", "numbers", "file", "began_at", "newest_at")
        rows = self._space.ask(
            f"SELECT {', '.join(names)} FROM tasks WHERE here < total "
            f"AND began_at > {self._start().started_at} ORDER BY began_at, task"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _start(self) -> Snapshot:
        """Return what is known, from where it starts now."""
        return replace(self._known, drained_at=self._drained_at(), full_since=self._full_since)

    def _drained_at(self) -> int:
        drained_at = self._known.drained_at
        for (at,) in self._space.ask("SELECT began_at FROM tasks WHERE total = 0 ORDER BY began_at"):
            if not drained_at or at >= drained_at + DRAIN_REPEATS:
                drained_at = at
        return drained_at

    def _drains_again(self, drained_at: int) -> int:
        return self._space.count(
            f"tasks AS again WHERE total = 0 AND began_at > {drained_at} AND "
            f"({self._known.told_at > drained_at} OR EXISTS (FROM tasks AS told WHERE told.total > 0 "
            f"AND told.began_at > {drained_at} AND told.began_at <= again.began_at))"
        )

    def _told(self, start: Snapshot) -> Snapshot:
        """Return the snapshot with the times of what was applied."""
        ((began_at, newest_at),) = self._space.ask(
            "SELECT coalesce(max(began_at), 0), coalesce(max(newest_at), 0) FROM tasks "
            f"WHERE here = total AND began_at > {start.started_at}"
        )
        return replace(
            start, told_at=max(start.told_at, began_at), as_of=max(start.as_of, start.drained_at, newest_at)
        )

    def _unknown(self) -> int:
        """Count whom the changes remove though nobody has ever added them."""
        removed = self._space.count(f"({REMOVED})")
        return removed and removed - self._space.count(
            f"(SELECT DISTINCT id FROM ({ADDED}) WHERE id IN ({REMOVED}))"
        )

    def _refuse_where_lost(self) -> None:
        if not self._pending:
            return
        rows = self._space.ask(NOT_HERE.format(started_at=self._start().started_at))
        gone = {name for (name,) in rows} - self._arrivals.names
        if gone:
            raise refusals.pages_lost(self._segment_id, self._landed, gone)

    def _refuse_incomplete(self, incomplete: list[dict[str, Any]], without: Snapshot) -> None:
        """Leave tasks out only where that is asked for, and where others before say who is in the segment."""
        if not incomplete:
            return
        ((first,),) = self._space.ask(
            f"SELECT min(began_at) FROM tasks WHERE here = total AND began_at > {without.started_at}"
        )
        is_known = self._known.told_at > without.started_at or (first or math.inf) < incomplete[0]["began_at"]
        if not (is_known and self._rules.skip):
            raise refusals.sync_incomplete(
                self._segment_id,
                incomplete,
                folder=self._arrivals.files[incomplete[0]["file"]].parent,
                now=self._rules.clock.now(),
                present=without.present if is_known else None,
            )

    def _refuse_unknown(self, snapshot: Snapshot) -> None:
        if snapshot.is_known:
            return
        raise refusals.nobody_known(self._segment_id, snapshot.full_since)

    def _watermark(self) -> int:
        """Return the newest hour, but none that is still to come: a clock may have been ahead."""
        newest = max(map(hour_of, self._arrivals.names), default=0)
        return max(self._known.watermark, min(newest, int(self._rules.clock.now() * 1000)))

    def _decided(self, started_at: int) -> Path:
        return self._write(
            "tasks",
            "SELECT task, total, left_out, bodies FROM known_tasks UNION ALL "
            f"SELECT task, total, here < total AND began_at > {started_at}, bodies FROM tasks",
        )

    def _files(self, watermark: int) -> Path:
        listed = [name for name in sorted(self._arrivals.names) if hour_of(name) >= since(watermark)]
        self._space.rows(table := f"files_{uuid4().hex}", "name VARCHAR", {"name": listed})
        return self._write("files", f"SELECT name FROM {table}")

    def _write(self, name: str, query: str) -> Path:
        file = self._space.folder / f"{name}-{uuid4().hex}.parquet"
        self._space.write(query, file)
        return file

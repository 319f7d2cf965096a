"""Landed webhooks as tables in DuckDB: who said what, when; and whether it can be understood."""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.members import reading
from airflow_provider_heapbraze.membership.tables import literal
from airflow_provider_heapbraze.segments_sync.errors import UnusablePageError
from airflow_provider_heapbraze.segments_sync.pages import START_ANEW

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_provider_heapbraze.membership.tables import Workspace

HOUR = "%Y-%m-%d-%H"
HOUR_FOLDER = re.compile(r"date=(\d{4}-\d\d-\d\d-\d\d)")
PIECE = 2 << 20  # bytes of a file that DuckDB reads at a time; or one line, where it is longer

SYNC, DRAIN = "segment.users.sync", "segment.users.drain"
# Values are read as JSON, whatever they are: PROBLEM says what they may be.
WEBHOOK = (
    "STRUCT(action_type JSON, data STRUCT(segment STRUCT(id JSON), "
    'sync_info STRUCT(page_number JSON, total_pages JSON, sync_task_id JSON), "add" JSON, "remove" JSON))'
)
# What Heap calls a sync is no person's data; it is shown where it can hold nothing else, either.
PRINTABLE = "[A-Za-z0-9_.:-]{1,64}"
WHOLE_NUMBER = "coalesce(json_type({0}) IN ('BIGINT', 'UBIGINT'), false)"
# Each element needs an id, if only a null. A list that is null is none.
IS_LIST = (
    "coalesce(json_type({0}) = 'ARRAY' AND json_array_length({0}) = len(json_extract({0}, '$[*].id')), false)"
)
# Heap's sample counts pages from 1. From 0 is not documented, and accepted: see DISAGREEING.
PROBLEM = f"""CASE
    WHEN received_at IS NULL OR sent_at IS NULL THEN 'does not say when it came'
    WHEN NOT {WHOLE_NUMBER.format("segment")} OR (segment ->> '$') <> {{segment_id}}
        THEN 'is about another segment'
    WHEN action = '{DRAIN}' THEN NULL
    WHEN action IS DISTINCT FROM '{SYNC}' THEN 'has an action_type that is not known'
    WHEN NOT coalesce(json_type(task_id) IN ('VARCHAR', 'BIGINT', 'UBIGINT'), false) OR (task_id ->> '$') = ''
        THEN 'has no sync_info with a sync_task_id'
    WHEN NOT ({WHOLE_NUMBER.format("page_number")} AND {WHOLE_NUMBER.format("total_pages")}
        AND coalesce(page >= 0 AND total >= 1 AND page <= total, false))
        THEN 'has a page_number or a total_pages that cannot be'
    WHEN added IS NULL AND removed IS NULL THEN 'says neither whom to add nor whom to remove'
    WHEN NOT (added IS NULL OR {IS_LIST.format("added")})
        OR NOT (removed IS NULL OR {IS_LIST.format("removed")})
        THEN 'names members in a way that is not known'
END"""
# A task's pages must agree on how many there are, also with what was known of it; and where they begin.
DISAGREEING = """
    SELECT max(file) FROM (
        SELECT task, total, page, file FROM pages UNION ALL SELECT task, total, NULL, NULL FROM known_tasks
    ) GROUP BY task
    HAVING count(DISTINCT total) > 1 OR (max(total) > 0 AND min(page) = 0 AND max(page) = max(total))
"""


# A page that comes again says the same; else it is no repeat, and somebody would be forgotten.
DIFFERING = """
    SELECT max(file) AS file FROM pages WHERE total > 0 GROUP BY task, page HAVING count(DISTINCT body) > 1
    UNION ALL SELECT file FROM pages JOIN known_tasks USING (task) WHERE NOT left_out
        AND list_contains(list_transform(bodies, lambda known: split_part(known, ':', 1)), page::VARCHAR)
        AND NOT list_contains(bodies, concat(page, ':', body))
"""
NO_CHANGES = "SELECT NULL::JSON AS id, 0 AS said_at, '' AS task, true AS present, true AS said_both LIMIT 0"


class Arrivals:
    """The landed files of a segment that were not read before, as the table ``pages``.

    Its columns: ``file``, ``received_at``, ``task`` (a digest), ``page``, ``total`` (0 for a drain, which is
    a task, too: what Heap sent at one time), ``body`` (a digest), ``problem`` and ``label`` (what Heap calls
    the task; NULL where that is not to be shown).

    :param landed: the segment's folder.
    :param since: UTC epoch milliseconds; folders of earlier hours are not listed.
    :param names: of files that were read before.
    """

    def __init__(
        self, space: Workspace, landed: Path, segment_id: int, since: int, names: Collection[str]
    ) -> None:
        self._space = space
        self._landed = landed
        self._problem = PROBLEM.format(segment_id=literal(segment_id))
        self._since = datetime.fromtimestamp(since / 1000, UTC).strftime(HOUR)
        self._seen = set(names)
        self._folder = Path(tempfile.mkdtemp(dir=space.folder))
        self._longest = PIECE
        self.files: list[Path] = []
        space.sql(
            "CREATE OR REPLACE TABLE pages (file INTEGER, received_at BIGINT, task VARCHAR, page BIGINT, "
            "total BIGINT, body VARCHAR, problem VARCHAR, label VARCHAR)"
        )

    @property
    def names(self) -> set[str]:
        """Return the names of all files that were read, now or before."""
        return self._seen

    def look(self) -> None:
        """Read what has landed since the last look.

        :raises ConfigurationError: a file cannot be read.
        :raises UnusablePageError: a webhook cannot be understood.
        """
        links = self._folder / f"look-{len(self.files):08d}"
        for path in self._new_files():
            links.mkdir(exist_ok=True)
            self._bring(storage.fetched(path, self._folder), links)
            self.files.append(path)
            self._seen.add(name_of(path))
        if links.exists():
            with self._one_thread():
                self._read(links)
            self._check()

    def changes(self, chosen: str) -> None:
        """Make the view ``changes``: id, said_at, task, present and said_both of every member that is named.

        :param chosen: query for the pages to read: task, page, body and said_at.
        """
        if not self.files:
            self._space.sql(f"CREATE OR REPLACE VIEW changes AS {NO_CHANGES}")
            return
        # A page's lists are opened only here: else all of it would go along with each member.
        webhooks = self._webhooks("look-*/*.ndjson")
        lists = " UNION ALL ".join(
            f"SELECT task, page, body, {present} AS present, unnest(ids) AS id FROM ("
            f"SELECT task, page, body, json_extract({name}, '$[*].id') AS ids FROM ({webhooks}))"
            for name, present in (("added", True), ("removed", False))
        )
        query = f"""
            SELECT id, said_at, task, bool_and(present) AS present,
                bool_or(present) <> bool_and(present) AS said_both
            FROM ({lists}) JOIN ({chosen}) USING (task, page, body)
            GROUP BY id, said_at, task
        """
        file = self._folder / "changes.parquet"
        with self._one_thread():
            reading("What has landed", partial(self._space.write, query, file))
        self._space.sql(f"CREATE OR REPLACE VIEW changes AS SELECT * FROM read_parquet({literal(file)})")

    @contextmanager
    def _one_thread(self) -> Iterator[None]:
        """Read with one thread: each would hold a buffer of 32 MiB and pages opened."""
        ((threads,),) = self._space.ask("SELECT current_setting('threads')")
        self._space.sql("SET threads = 1")
        try:
            yield
        finally:
            self._space.sql(f"SET threads = {threads}")

    def _bring(self, file: Path, links: Path) -> None:
        """Give a file a name of our own, since DuckDB would take some for patterns; a large one in pieces.

        DuckDB reads 2,048 lines at a time, which may be as many pages of a thousand members each.
        """
        ending = f"{len(self.files):08d}.ndjson"
        if file.stat().st_size <= PIECE:
            (links / f"0-{ending}").symlink_to(file.absolute())
            return
        with file.open("rb") as lines:
            for number, piece in enumerate(iter(lambda: b"".join(lines.readlines(PIECE)), b"")):
                (links / f"{number}-{ending}").write_bytes(piece)
                self._longest = max(self._longest, len(piece))

    def _new_files(self) -> list[Path]:
        storage.refresh(self._landed)
        try:
            hours = [path for path in self._landed.iterdir() if HOUR_FOLDER.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):  # universal-pathlib says the latter
            return []
        files = (
            file
            for hour in sorted(hours, key=lambda path: path.name)
            if hour.name >= f"date={self._since}"
            for file in storage.listed(hour)
        )
        return [
            path
            for path, _ in files
            if path.name.endswith(".ndjson") and path.name[0] != "." and name_of(path) not in self._seen
        ]

    def _read(self, links: Path) -> None:
        with suppress(ConfigurationError):
            reading("What has landed", partial(self._insert, f"{links.name}/*.ndjson"))
            return
        # Once more, one by one: the error must name the file.
        for link in sorted(links.iterdir()):
            uri = storage.uri(self.files[int(link.stem.rpartition("-")[2])])
            reading(f"The landed file {uri}", partial(self._insert, f"{links.name}/{link.name}"))

    def _insert(self, pattern: str) -> None:
        self._space.sql(
            f"INSERT INTO pages SELECT file, received_at, task, page, total, body, {self._problem}, label "
            f"FROM ({self._webhooks(pattern)})"
        )

    def _webhooks(self, pattern: str) -> str:
        return f"""
            WITH line AS (
                SELECT CAST(filename[-15:-8] AS INTEGER) AS file, received_at, sent_at,
                    body.action_type ->> '$' AS action, body.data.segment.id AS segment,
                    body.data.sync_info.sync_task_id AS task_id,
                    body.data.sync_info.page_number AS page_number,
                    body.data.sync_info.total_pages AS total_pages,
                    body.data."add" AS added, body.data."remove" AS removed
                FROM read_json({literal(self._folder / pattern)}, format = 'newline_delimited',
                    records = true, filename = true, hive_partitioning = false,
                    maximum_object_size = {self._longest},
                    columns = {{received_at: 'BIGINT', sent_at: 'BIGINT', body: '{WEBHOOK}'}})
            )
            SELECT *, md5(concat({_in_order("added")}, ' ', {_in_order("removed")})) AS body,
                CASE action WHEN '{DRAIN}' THEN 0 ELSE TRY_CAST(page_number ->> '$' AS BIGINT) END AS page,
                CASE action WHEN '{DRAIN}' THEN 0 ELSE TRY_CAST(total_pages ->> '$' AS BIGINT) END AS total,
                left(sha256(CASE action WHEN '{DRAIN}' THEN concat('drain ', sent_at)
                    ELSE concat('task ', task_id ->> '$') END), 32) AS task,
                CASE WHEN regexp_full_match(task_id ->> '$', {literal(PRINTABLE)}) THEN task_id ->> '$' END
                    AS label
            FROM line
        """

    def _check(self) -> None:
        problems = self._space.ask(
            "SELECT file, problem FROM pages WHERE problem IS NOT NULL ORDER BY file LIMIT 1"
        )
        problems += [
            (file, "does not agree with other pages of its sync") for file in self._found(DISAGREEING)
        ]
        problems += [
            (file, "says something else than the same page of its sync said before")
            for file in self._found(DIFFERING)
        ]
        for file, problem in problems:
            raise UnusablePageError(
                f"A webhook in the landed file {storage.uri(self.files[file])} {problem}. Nothing was sent. "
                "Nothing of the file was applied. Look at it there (it holds members); a newer version "
                "of this package may know it. To go on without it, move the file out of the landing path, "
                f"and {START_ANEW}."
            )

    def _found(self, query: str) -> list[int]:
        return [file for (file,) in self._space.ask(f"{query} ORDER BY 1 LIMIT 1")]


def _in_order(members: str) -> str:
    """Return SQL for a page's list of members, whatever their order."""
    return f"CAST(list_sort(CAST(json_extract({members}, '$[*].id') AS VARCHAR[])) AS VARCHAR)"


def name_of(path: Path) -> str:
    """Return a landed file's name with its hour's: no other file of the segment has it."""
    return f"{path.parent.name}/{path.name}"


def hour_of(name: str) -> int:
    """Return the hour that a file's name says, UTC epoch milliseconds."""
    hour = datetime.strptime(name[5:18], HOUR).replace(tzinfo=UTC)
    return int(hour.timestamp()) * 1000


def end_of_hour(name: str) -> int:
    """Return the end of the hour that a file's name says, UTC epoch milliseconds."""
    return hour_of(name) + 3_600_000

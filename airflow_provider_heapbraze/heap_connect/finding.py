"""How the members that a query means are found in Heap Connect's dumps."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.heap_connect import rules
from airflow_provider_heapbraze.heap_connect.contents import MIGRATIONS, Content, find_contents
from airflow_provider_heapbraze.heap_connect.parts import USER_IDS, put_down
from airflow_provider_heapbraze.heap_connect.query import SOURCE, Reads, examine, run
from airflow_provider_heapbraze.membership.members import Part, reading
from airflow_provider_heapbraze.membership.tables import identifier, literal, workspace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.tables import Workspace

log = logging.getLogger(__name__)

USERS = "users"
# What the rules need, whatever the query names.
ALWAYS = USER_IDS | {"event_id"}
ALSO = {USERS: {"last_modified"}, MIGRATIONS: {"time"}}


def find_members(uri: str, sql: str, space: Workspace, access: Access, columns: Sequence[str]) -> Part:
    """Find all members, as one part.

    :param uri: the folder that holds ``manifests`` and the dumps' folders.
    :param sql: the query whose rows are the members.
    :raises ConfigurationError: there is no such folder, or the query cannot be run.
    """
    if not uri:
        raise ConfigurationError("The path of HeapConnectMembers is empty. Nothing was sent.")
    root = access.path(uri)
    file = space.folder / "heap-connect.parquet"
    # A connection of its own, and gone with all that was read: the user's query cannot reach any other.
    with workspace() as own:
        taken_at = _find(own, storage.local(root) or root, sql, columns, file)
    return Part(SOURCE, f"SELECT * FROM read_parquet({literal(file)})", taken_at)


def _find(space: Workspace, root: Path, sql: str, columns: Sequence[str], target: Path) -> datetime:
    """Write the members; return when they were the members."""
    space.sql("SET threads = 2")
    space.sql("SET python_enable_replacements = false")  # a table's name must not mean a variable of ours
    reads = examine(space, sql)
    contents = find_contents(root, reads.tables, reads.perhaps)
    space.sql(rules.PREPARE)
    # The migrations first: all other tables need them.
    shown = [
        _show(space, content, reads)
        for content in sorted(contents.values(), key=lambda content: content.name.lower() != MIGRATIONS)
    ]
    rows = run(space, sql, columns, target, "\n".join(shown))
    dumps = {dump.dump_id: dump for content in contents.values() for dump in content.dumps}
    log.info("Heap Connect: %s members, from the dumps %s to %s", f"{rows:,}", min(dumps), max(dumps))
    return storage.changed_at(dumps[max(dumps)].path)


def _show(space: Workspace, content: Content, reads: Reads) -> str:
    """Make the view that the query reads a table by; return what it may name there."""
    key = content.name.lower()
    wanted = None if key in reads.whole else reads.columns | ALWAYS | ALSO.get(key, set())
    with tempfile.TemporaryDirectory(dir=space.folder) as folder:
        parts = put_down(space, content, wanted, Path(folder))
        raw = rules.raw_table(space, parts)
        _tell_of_times(content.name, reading(content.name, partial(rules.unread_times, space, raw)), reads)
        if key == MIGRATIONS:
            reading(content.name, partial(rules.find_moves, space, raw))
        rule = {USERS: rules.users_now, MIGRATIONS: rules.as_dumped}.get(key, rules.events_now)
        file = space.folder / f"{uuid4().hex}.parquet"
        rows = reading(content.name, lambda: space.write(rule(space, raw), file))
    space.sql(f"CREATE VIEW {identifier(content.name)} AS SELECT * FROM read_parquet({literal(file)})")
    log.info(
        "Heap Connect: %s rows of %s in %s files, %s rows now",
        f"{sum(part.rows for part in parts):,}",
        content.name,
        f"{len(content.files):,}",
        f"{rows:,}",
    )
    known = dict.fromkeys(name for part in parts for name in part.known)
    return f"Columns of {content.name}: {', '.join(known)}."


def _tell_of_times(table: str, found: dict[str, tuple[int, int]], reads: Reads) -> None:
    """Tell of times that cannot be read, which are NULL.

    :raises ConfigurationError: the query names a column of which not one can be.
    """
    key = table.lower()
    for column, (unread, read) in found.items():
        if not unread or not reads.names(key, column.lower()):
            continue
        if not read:
            raise ConfigurationError(
                f"{table}.{column} has {unread:,} values, and not one can be read as a time: neither text "
                "such as 2026-01-31 08:00:00 nor seconds, milli-, micro- or nanoseconds since 1970. "
                "Nothing was sent. Look at the column in the dump; a query that does not name it (with * it "
                "does) can be run meanwhile. The values are not shown: they may be a member's."
            )
        log.warning(
            "Heap Connect: %s of %s times in %s.%s cannot be read, and are NULL",
            f"{unread:,}",
            f"{unread + read:,}",
            table,
            column,
        )

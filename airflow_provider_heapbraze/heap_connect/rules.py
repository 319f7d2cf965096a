"""Tables as they are now: rows once, times as times, and every user under the id they have moved to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.heap_connect.parts import USER_IDS
from airflow_provider_heapbraze.membership.tables import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_provider_heapbraze.heap_connect.parts import Part
    from airflow_provider_heapbraze.membership.tables import Workspace

TIMES = {"joindate", "last_modified", "time", "session_time"}
WHOLE = {"INTEGER", "BIGINT"}
NUMBERS = WHOLE | {"FLOAT", "DOUBLE"}
# Heap's sources do not agree on units: the magnitude tells, until the year 5138; of nanoseconds from 1973 on,
# until 2262, where they end. Not a time: 0, and others.
PREPARE = r"""
CREATE SCHEMA work;
CREATE TABLE work.moved (source BIGINT, target BIGINT);
CREATE MACRO work.moment(t) AS CASE WHEN isfinite(t) AND epoch_us(t) <> 0 THEN t END;
CREATE MACRO work.epoch(n) AS make_timestamp(CASE
    WHEN n <= 0 THEN NULL
    WHEN n < 100000000000 THEN (n * 1000000)::BIGINT
    WHEN n < 100000000000000 THEN (n * 1000)::BIGINT
    WHEN n < 100000000000000000 THEN n::BIGINT
    WHEN n < 9223372036854775807 THEN n::BIGINT // 1000 END);
CREATE MACRO work.written(t) AS CASE
    WHEN regexp_full_match(t, '\d+') THEN work.epoch(TRY_CAST(t AS BIGINT))
    WHEN regexp_full_match(t, '\d+\.\d+') THEN work.epoch(TRY_CAST(t AS DOUBLE))
    ELSE work.moment(TRY_CAST(t AS TIMESTAMPTZ)::TIMESTAMP) END;
"""
# Texts that say that there is no time.
NO_TIME = r"[0.]*|1970-01-01.*"


@dataclass(frozen=True)
class Raw:
    """A table as it was dumped.

    :param view: its name in SQL; its columns are ``v0``, ``v1``, and ``place`` and ``row``: later ones are
        newer. Of times ``given0``, ``given1`` tell where there was a value.
    :param names: the columns' names.
    :param times: the places of those that are times.
    """

    view: str
    names: tuple[str, ...]
    times: tuple[int, ...]

    def cell(self, name: str) -> str | None:
        """Return what the view calls a column; its name is in lower case."""
        return next((f"v{i}" for i, own in enumerate(self.names) if own.lower() == name), None)


def raw_table(space: Workspace, parts: Sequence[Part]) -> Raw:
    """Make a view of a table's parts, in the place of the last one; a column that a part lacks is NULL."""
    types: dict[str, set[str]] = {}
    spelling: dict[str, str] = {}
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for part in parts:
        columns = tuple((name.lower(), kind) for name, kind in part.columns)
        spelling |= {name.lower(): name for name, _ in part.columns}
        for name, kind in columns:
            types.setdefault(name, set()).add(kind)
        if part.file is not None:
            groups.setdefault(columns, []).append(part.file)
    wanted = {name: _common_type(name, kinds) for name, kinds in types.items()}
    times = tuple(i for i, kind in enumerate(wanted.values()) if kind == "TIMESTAMP")
    nulls = [f"NULL::{kind} AS v{i}" for i, kind in enumerate(wanted.values())]
    nulls += [f"false AS given{i}" for i in times]
    queries = [f"SELECT {', '.join(nulls)}, 0 AS place, 0::BIGINT AS row LIMIT 0"]
    for columns, files in groups.items():
        sources = {name: (f"v{i}", kind) for i, (name, kind) in enumerate(columns)}
        cells = [
            f"{_converted(*sources[name], kind) if name in sources else f'NULL::{kind}'} AS v{i}"
            for i, (name, kind) in enumerate(wanted.items())
        ]
        cells += [
            f"{_given(*sources[name]) if name in sources else 'false'} AS given{i}"
            for i, (name, kind) in enumerate(wanted.items())
            if i in times
        ]
        listed = ", ".join(map(literal, files))
        queries.append(
            f"SELECT {', '.join(cells)}, place, file_row_number AS row FROM read_parquet([{listed}], "
            "file_row_number = true, hive_partitioning = false)"
        )
    view = "work.raw"
    space.sql("DROP TABLE IF EXISTS work.chosen")
    space.sql(f"CREATE OR REPLACE VIEW {view} AS {' UNION ALL '.join(f'({query})' for query in queries)}")
    return Raw(view, tuple(spelling[name] for name in wanted), times)


def unread_times(space: Workspace, raw: Raw) -> dict[str, tuple[int, int]]:
    """Return of each column of times, by its name, how many values cannot be read, and how many can."""
    if not raw.times:
        return {}
    counts = ", ".join(f"count(*) FILTER (given{i} AND v{i} IS NULL), count(v{i})" for i in raw.times)
    (row,) = space.ask(f"SELECT {counts} FROM {raw.view}")
    return {raw.names[i]: row[2 * n : 2 * n + 2] for n, i in enumerate(raw.times)}


def find_moves(space: Workspace, migrations: Raw) -> None:
    """Make the table ``work.moved``: every ``source`` that has another id now, its ``target``, in the end.

    Each round doubles the steps that every pointer has made. One that still points at a source after as many
    steps as there are pointers is on a cycle, or leads to one: all of it moves to the smallest id of the
    cycle, which ``low`` has seen by then.

    :raises ConfigurationError: they are not user migrations.
    """
    source, target = migrations.cell("from_user_id"), migrations.cell("to_user_id")
    if source is None or target is None:
        raise ConfigurationError(
            "The dumps' user_migrations have no from_user_id or no to_user_id. Nothing was sent. "
            "HeapConnectMembers reads dumps as Heap writes them."
        )
    space.sql(
        f"CREATE TABLE work.step AS SELECT {source} AS source, {target} AS target, {target} AS low "
        f"FROM {migrations.view} WHERE {source} <> {target} {_newest(migrations, source, 'time')}"
    )
    for _ in range(space.count("work.step").bit_length()):
        if not space.count("work.step a SEMI JOIN work.step b ON b.source = a.target"):
            break
        space.sql(
            "CREATE OR REPLACE TABLE work.step AS SELECT a.source, coalesce(b.target, a.target) AS target, "
            "least(a.low, b.low) AS low FROM work.step a LEFT JOIN work.step b ON b.source = a.target"
        )
    space.sql(
        "INSERT INTO work.moved SELECT a.source, coalesce(b.low, a.target) "
        "FROM work.step a LEFT JOIN work.step b ON b.source = a.target"
    )


def users_now(space: Workspace, raw: Raw) -> str:
    """Return the query for users: each once, and those who moved to one id merged.

    The newest row of an id wins. Of those that are merged the earliest ``joindate`` and the latest
    ``last_modified`` are kept, and the largest of every other value.
    """
    user = raw.cell("user_id")
    if user is None:
        return as_dumped(space, raw)
    moved = "SELECT source FROM work.moved UNION SELECT target FROM work.moved"
    # Only users that something happened to are compared and merged: they are few among all.
    space.sql(f"CREATE TABLE work.chosen AS {_repeated(raw, user)} UNION {moved}")
    merged = ", ".join(
        f"{'min' if name.lower() == 'joindate' else 'max'}(v{i}) AS v{i}"
        for i, name in enumerate(raw.names)
        if f"v{i}" != user
    )
    query = (
        f"SELECT {_cells(raw)} FROM {raw.view} ANTI JOIN work.chosen ON {user} = id UNION ALL BY NAME "
        f"SELECT coalesce(target, {user}) AS {user}{merged and ', '}{merged} FROM "
        f"(FROM {raw.view} SEMI JOIN work.chosen ON {user} = id {_newest(raw, user, 'last_modified')}) "
        f"LEFT JOIN work.moved ON source = {user} GROUP BY coalesce(target, {user})"
    )
    return _named(raw, query)


def events_now(space: Workspace, raw: Raw) -> str:
    """Return the query for any other table: each event once, its newest row, under its user's id of now."""
    query = f"FROM {raw.view}"
    event, user = raw.cell("event_id"), raw.cell("user_id")
    if event is not None:
        space.sql(f"CREATE TABLE work.chosen AS {_repeated(raw, event)}")
        query = (
            f"FROM {raw.view} ANTI JOIN work.chosen ON {event} = id UNION ALL "
            f"(FROM {raw.view} SEMI JOIN work.chosen ON {event} = id {_newest(raw, event)})"
        )
    if user is not None:
        query = (
            f"SELECT * REPLACE (coalesce(target, {user}) AS {user}) FROM ({query}) "
            f"LEFT JOIN work.moved ON source = {user}"
        )
    return _named(raw, query)


def as_dumped(_space: Workspace, raw: Raw) -> str:
    """Return the query for a table that no rule changes."""
    return _named(raw, f"FROM {raw.view}")


def _common_type(name: str, kinds: set[str]) -> str:
    """Return the type that a column has in all parts; whole numbers stay exact if all are."""
    if name in USER_IDS:
        return "BIGINT"
    if name in TIMES or any(kind.startswith("TIMESTAMP") for kind in kinds):
        return "TIMESTAMP"
    if len(kinds) == 1:
        return next(iter(kinds))
    if kinds <= NUMBERS:
        return "BIGINT" if kinds <= WHOLE else "DOUBLE"
    return "VARCHAR"


def _converted(cell: str, kind: str, wanted: str) -> str:
    """Return SQL for a value in the type that its column has in all parts."""
    if wanted != "TIMESTAMP":
        return f"{cell}::{wanted}"
    if kind in NUMBERS:
        return f"work.epoch({cell}::{'BIGINT' if kind in WHOLE else 'DOUBLE'})"
    if kind == "VARCHAR":
        return f"work.written(trim({cell}))"
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return f"work.moment({cell}::TIMESTAMP)"
    return "NULL::TIMESTAMP"


def _given(cell: str, kind: str) -> str:
    """Return SQL that tells whether there is a value that should be a time."""
    if kind in NUMBERS:
        return f"{cell} <> 0"
    if kind == "VARCHAR":
        return f"NOT regexp_full_match(trim({cell}), {literal(NO_TIME)})"
    if kind == "DATE" or kind.startswith("TIMESTAMP"):
        return "false"  # it is one
    return f"{cell} IS NOT NULL"


def _repeated(raw: Raw, key: str) -> str:
    return f"SELECT {key} AS id FROM {raw.view} WHERE {key} IS NOT NULL GROUP BY {key} HAVING count(*) > 1"


def _newest(raw: Raw, key: str, time: str = "") -> str:
    """Return the clause that keeps of every key the newest row: by a column, then by dump, part and row."""
    cell = raw.cell(time)
    order = f"{cell} DESC NULLS LAST, " if cell else ""
    return f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {order}place DESC, row DESC) = 1"


def _cells(raw: Raw) -> str:
    return ", ".join(f"v{i}" for i in range(len(raw.names)))


def _named(raw: Raw, query: str) -> str:
    names = ", ".join(f"v{i} AS {identifier(name)}" for i, name in enumerate(raw.names))
    return f"SELECT {names} FROM ({query})"

"""Where a segment's members come from.

A source is a small description that a DAG author writes and Airflow renders; it holds no connection and does
nothing when a DAG is parsed. At run time it gives the members to DuckDB, part by part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow as pa

    from airflow_provider_heapbraze.membership.tables import Workspace
    from airflow_provider_heapbraze.membership.warehouse import Database

T = TypeVar("T")

# Rows of a database: as tuples, or as an Arrow table whose columns are in the query's order.
Chunk: TypeAlias = "list[tuple[Any, ...]] | pa.Table"


class Access(Protocol):
    """What a source may ask of the place where it runs."""

    @property
    def ledger(self) -> Path:
        """Return the folder of all ledgers, for a source that keeps what it has read."""

    def path(self, uri: str) -> Path:
        """Return the path of a file; it has pathlib's interface."""

    def query(self, conn_id: str, sql: str) -> AbstractContextManager[tuple[list[str], Iterator[Chunk]]]:
        """Run a query; give its columns' names, and its rows in chunks."""

    def database(self, conn_id: str) -> AbstractContextManager[Database]:
        """Open a warehouse in which tables are made."""


@dataclass(frozen=True)
class Part:
    """Some of the members.

    :param name: what messages call it.
    :param query: SQL that gives the columns that were asked for as ``c0``, ``c1`` and so on, in that order.
    :param taken_at: when they were the members, UTC: what happened in Heap later, this part does not know.
    """

    name: str
    query: str
    taken_at: datetime


class Members(Protocol):
    """A source of members."""

    template_fields: ClassVar[Sequence[str]]

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give the members, part by part; a part can be read until the next one is asked for.

        :param columns: names of the columns that are needed.
        :raises ConfigurationError: the members cannot be read as they are described.
        """


@dataclass
class FileMembers:
    """Members in files, on any storage that Airflow reaches.

    A value in a CSV file is the text that is there; in NDJSON and Parquet a number is a number.

    :param path: a file, a folder or a pattern, for example ``s3://conn_id@bucket/segments/trial/*.csv``. A
        folder means all files below it, without those whose names begin with a dot or an underscore.
    :param format: ``csv`` (with commas and a header), ``ndjson`` or ``parquet``; by default the file's ending
        says it. Files may be compressed (``.gz``, ``.zst``).
    """

    template_fields: ClassVar[Sequence[str]] = ("path", "format")

    path: str
    format: str | None = None

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give one part per file; see :class:`Members`."""
        from airflow_provider_heapbraze import storage
        from airflow_provider_heapbraze.membership import files

        seen: set[str] = set()
        for path in files.find(self.path, access):
            read = files.READERS[files.format_of(path.name, self.format)]
            with files.on_disk(path, space.folder) as file:
                query, names = reading(path.name, partial(read, space, file, columns, path.name))
                seen.update(names)
                yield Part(path.name, query, storage.changed_at(path))
        if seen and seen.isdisjoint(columns):
            raise files.missing_columns(columns, seen, self.path)


@dataclass
class SqlMembers:
    """Members from a database; rows are streamed, not collected, and nothing is written there.

    The query carries a comment with the names of DAG, run and task. For Heap's own tables
    :func:`~airflow_provider_heapbraze.members.heap_segment_query` writes it.

    :param conn_id: an Airflow connection whose hook is a ``DbApiHook``: of type ``redshift``, ``snowflake``,
        ``gcpbigquery`` (with ``"use_legacy_sql": false`` in its extra), ``databricks`` (with ``http_path``),
        ``postgres`` and others.
    :param sql: a ``SELECT`` whose rows are the members.
    """

    template_fields: ClassVar[Sequence[str]] = ("conn_id", "sql")

    conn_id: str
    sql: str

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give one part per chunk of rows; see :class:`Members`."""
        from airflow_provider_heapbraze.membership.files import column_place

        asked_at = datetime.now(UTC)
        with access.query(self.conn_id, self.sql) as (names, chunks):
            places = [column_place(name, names, "The query of SqlMembers") for name in columns]
            for chunk in _at_least_one(chunks):
                yield Part("The query of SqlMembers", _show(space, chunk, places), asked_at)


def reading(source: str, work: Callable[[], T]) -> T:
    """Read some of the members; where DuckDB cannot, say where, and not a word of what is there.

    :raises ConfigurationError: DuckDB could not read it. Its own error quotes the members: the new one is
        raised after it is gone, so that it does not come along as the context.
    """
    import duckdb

    try:
        return work()
    except (duckdb.OutOfMemoryException, duckdb.InternalException):
        raise
    except (duckdb.Error, UnicodeDecodeError) as error:
        if "No space left" in str(error):
            raise
        line = re.search(r"\b[Ll]ine:? (\d+)", str(error))
    place = f" near line {line[1]}" if line else ""
    raise ConfigurationError(
        f"{source} cannot be read{place}: it is damaged, or of another format than its ending or format= "
        "says. (Text is UTF-8.) Nothing was sent. What is wrong is not shown: it would quote the members."
    )


def _at_least_one(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Give an empty chunk where there is none: nobody is a result, too."""
    yield next(chunks, [])
    yield from chunks


def _show(space: Workspace, chunk: Chunk, places: Sequence[int]) -> str:
    """Show rows to DuckDB as the table ``chunk``; return the query that gives their columns."""
    import pyarrow as pa

    from airflow_provider_heapbraze.membership.columns import arrow_column, column

    arrays, cells = {}, []
    for i, place in enumerate(places):
        arrays[f"c{i}"], is_json = (
            column([row[place] for row in chunk])
            if isinstance(chunk, list)
            else arrow_column(chunk.column(place))
        )
        cells.append(f"c{i}::JSON AS c{i}" if is_json else f"c{i}")
    space.connection.register("chunk", pa.table(arrays))
    return f"SELECT {', '.join(cells)} FROM chunk"

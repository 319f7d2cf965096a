"""Where a segment's members come from.

A source is a small description that a DAG author writes and Airflow renders; it holds no connection and does
nothing when a DAG is parsed. At run time it puts the members into DuckDB, part by part.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.values import identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow_provider_heapbraze.membership.tables import Workspace

T = TypeVar("T")
FileFormat = Literal["csv", "ndjson", "parquet"]
FORMATS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
NAME = re.compile(r"[A-Za-z_][A-Za-z_ ]*")
COMPRESSED = re.compile(r"\.(gz|zst)$")


class Access(Protocol):
    """What a source may ask of the place where it runs."""

    def path(self, uri: str) -> Path:
        """Return the path of a file."""

    def query(
        self, conn_id: str, sql: str
    ) -> AbstractContextManager[tuple[list[str], Iterator[list[tuple[Any, ...]]]]]:
        """Run a query; give its columns' names, and its rows in chunks."""


class Part(NamedTuple):
    """Some of the members, in DuckDB.

    :param view: has the columns that are needed.
    :param source: what to call it in a message.
    """

    view: str
    source: str


class Members(Protocol):
    """A source of members."""

    template_fields: ClassVar[Sequence[str]]

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Put the members into DuckDB, part by part; each part is gone when the next one is asked for.

        :param columns: names of the columns that are needed; others may be left out.
        :returns: the parts, in their order.
        :raises ConfigurationError: the members cannot be read as they are described.
        """


@dataclass
class FileMembers:
    """Members in files, on any storage that Airflow reaches.

    :param path: a file, a folder or a pattern, for example ``s3://conn_id@bucket/segments/trial/*.csv``.
    :param format: ``csv`` (with a header), ``ndjson`` or ``parquet``; by default the file's ending says it.
        CSV and NDJSON may be compressed (``.gz``, ``.zst``).
    """

    template_fields: ClassVar[Sequence[str]] = ("path", "format")

    path: str
    format: str | None = None

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give one part per file; the copy of a remote one is gone when the next one is asked for."""
        for file in _files(access.path(self.path)):
            kind = self._format_of(file.name)
            with storage.local_copy(file) as copy:
                present = reading(file.name, partial(_columns_of, kind, space, copy, columns))
                _check_columns(columns, present, file.name)
                yield Part("part", file.name)

    def _format_of(self, name: str) -> FileFormat:
        named = self.format if self.format not in {None, "", "None"} else None
        ending = COMPRESSED.sub("", name.lower())
        kind = FORMATS.get(f".{named}") if named else FORMATS.get(f".{ending.rpartition('.')[2]}")
        if kind is None:
            raise ConfigurationError(
                f"The format of {name} is not known: FileMembers reads csv, ndjson and parquet. Give "
                "format= where the file's ending does not say it. Nothing was sent."
            )
        return kind


@dataclass
class SqlMembers:
    """Members from a database; rows are streamed, not collected.

    :param conn_id: an Airflow connection whose hook is a ``DbApiHook``.
    :param sql: a query whose rows are the members.
    """

    template_fields: ClassVar[Sequence[str]] = ("conn_id", "sql")

    conn_id: str
    sql: str

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[Part]:
        """Give one part per chunk of rows."""
        with access.query(self.conn_id, self.sql) as (names, chunks):
            _check_columns(columns, names, "The query")
            wanted = {column.lower() for column in columns}
            needed = [place for place, name in enumerate(names) if name.lower() in wanted]
            for chunk in chunks:
                _register(space, names, needed, chunk)
                yield Part("part", "The query")


def _files(path: Path) -> list[Path]:
    """Return the files that a path means, in the order of their names."""
    if "*" in path.name:
        found = list(path.parent.glob(path.name))
    elif path.is_dir():
        found = list(path.iterdir())
    else:
        found = [path] if path.exists() else []
    files = [file for file in found if file.is_file() and not file.name.startswith((".", "_"))]
    if not files:
        raise ConfigurationError(
            f"There is no file at {path.name!r}: FileMembers finds nothing to read. Nothing was sent. (An "
            "empty segment is a file without rows.)"
        )
    return sorted(files, key=lambda file: file.name)


def _columns_of(kind: FileFormat, space: Workspace, file: Path, columns: Sequence[str]) -> list[str]:
    """Make the view ``part`` of a file; return the names of its columns."""
    _READERS[kind](space, file, columns)
    return [row[0] for row in space.ask("DESCRIBE part")]


def _read_csv(space: Workspace, file: Path, _columns: Sequence[str]) -> None:
    space.sql(
        f"CREATE OR REPLACE VIEW part AS SELECT * FROM read_csv({_quoted(file)}, header = true, "
        "all_varchar = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', strict_mode = true)"
    )


def _read_ndjson(space: Workspace, file: Path, columns: Sequence[str]) -> None:
    """Keep every value as JSON: a column may hold a text in one row and a number or an object in the next.

    A key that is left out is null, as many writers do; but not all that are needed may be.
    """
    space.sql(f"CREATE OR REPLACE VIEW objects AS SELECT * FROM read_ndjson_objects({_quoted(file)})")
    keys = {row[0] for row in space.ask("SELECT DISTINCT unnest(json_keys(json)) FROM objects")}
    present = columns if not keys or keys.intersection(columns) else sorted(keys)
    values = [f"json->{_json_path(column)} AS {identifier(column)}" for column in present]
    space.sql(f"CREATE OR REPLACE VIEW part AS SELECT {', '.join(values)} FROM objects")


def _read_parquet(space: Workspace, file: Path, _columns: Sequence[str]) -> None:
    space.sql(
        f"CREATE OR REPLACE VIEW part AS SELECT * FROM read_parquet({_quoted(file)}, binary_as_string = true)"
    )


_READERS = {"csv": _read_csv, "ndjson": _read_ndjson, "parquet": _read_parquet}


def reading(source: str, work: Callable[[], T]) -> T:
    """Read some of the members; where DuckDB cannot, say which source it is, and not a word of what it holds.

    :raises ConfigurationError: DuckDB could not read it. Its own error quotes the members: the new one is
        raised after it is gone, so that it does not come along as the context.
    """
    import duckdb

    try:
        return work()
    except (duckdb.OutOfMemoryException, duckdb.InternalException):
        raise
    except duckdb.Error as error:
        problem = str(error)
    place = re.search(r"[Ll]ine:? (\d+)", problem)
    where = f" in line {place[1]}" if place else ""
    raise ConfigurationError(
        f"{source} cannot be read{where}: it is not in the format that its ending, or format=, says. (Text "
        "is UTF-8.) Nothing was sent. What is wrong there is not shown, because it would quote the members."
    )


def _check_columns(columns: Sequence[str], present: Sequence[str], source: str) -> None:
    known = Counter(name.lower() for name in present)
    twice = [column for column in columns if known[column.lower()] > 1]
    if twice:
        raise ConfigurationError(
            f"{source} has column {', '.join(map(repr, twice))} twice; which one is meant is not known. "
            "Nothing was sent."
        )
    missing = [column for column in columns if column.lower() not in known]
    if missing:
        # Without a header the names are the first member's values.
        named = all(NAME.fullmatch(name) for name in present)
        hint = f"It has {', '.join(map(repr, present))}." if named else "Is there a header?"
        raise ConfigurationError(
            f"{source} has no column {', '.join(map(repr, missing))}, which IdentityMapping names. {hint} "
            "Nothing was sent."
        )


def _register(
    space: Workspace, names: Sequence[str], needed: Sequence[int], rows: list[tuple[Any, ...]]
) -> None:
    """Make the view ``part`` of rows; a column of several types becomes JSON, value by value."""
    import pyarrow as pa

    columns, shown = {}, []
    for place in needed:
        values = [row[place] for row in rows]
        name = identifier(names[place])
        try:
            columns[names[place]] = pa.array(values)
            shown.append(name)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            columns[names[place]] = pa.array([_as_json(value) for value in values], pa.string())
            shown.append(f"{name}::JSON AS {name}")
    space.connection.register("rows", pa.table(columns))
    space.sql(f"CREATE OR REPLACE VIEW part AS SELECT {', '.join(shown)} FROM rows")


def _as_json(value: Any) -> str | None:
    finite = not isinstance(value, float) or math.isfinite(value)
    return None if value is None or not finite else json.dumps(value, default=_plain)


def _plain(value: Any) -> int | str | list[int]:
    """Say what JSON has no form for: a whole decimal is a number, bytes are UTF-8, all else is a text."""
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return list(bytes(value))
    whole = isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value()
    return int(value) if whole else str(value)


def _json_path(column: str) -> str:
    escaped = json.dumps(column, ensure_ascii=False).replace("'", "''")
    return f"'$.{escaped}'"


def _quoted(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"

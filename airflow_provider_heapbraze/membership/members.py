"""Where a segment's members come from.

A source is a small description that a DAG author writes and Airflow renders; it holds no connection and does
nothing when a DAG is parsed. At run time it puts the members into DuckDB, part by part.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow_provider_heapbraze.membership.tables import Workspace

FileFormat = Literal["csv", "ndjson", "parquet"]
FORMATS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
COMPRESSED = re.compile(r"\.(gz|zst)$")


class Access(Protocol):
    """What a source may ask of the place where it runs."""

    def path(self, uri: str) -> Path:
        """Return the path of a file."""

    def query(
        self, conn_id: str, sql: str
    ) -> AbstractContextManager[tuple[list[str], Iterator[list[tuple[Any, ...]]]]]:
        """Run a query; give its columns' names, and its rows in chunks."""


class Members(Protocol):
    """A source of members."""

    template_fields: ClassVar[Sequence[str]]

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[str]:
        """Put the members into DuckDB, part by part; each part is gone when the next one is asked for.

        :param columns: names of the columns that are needed; others may be left out.
        :returns: the name of a view that has these columns, per part.
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

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[str]:
        """Give one part per file."""
        for file in _files(access.path(self.path)):
            kind = self._format_of(file.name)
            with _read(file.name):
                _READERS[kind](space, storage.fetched(file, space.folder), columns)
            _check_columns(columns, [row[0] for row in space.ask("DESCRIBE part")], file.name)
            yield "part"

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

    def parts(self, space: Workspace, access: Access, columns: Sequence[str]) -> Iterator[str]:
        """Give one part per chunk of rows."""
        with access.query(self.conn_id, self.sql) as (names, chunks):
            _check_columns(columns, names, "the query")
            wanted = {column.lower() for column in columns}
            needed = [place for place, name in enumerate(names) if name.lower() in wanted]
            for chunk in chunks:
                _register(space, names, needed, chunk)
                yield "part"


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


def _read_csv(space: Workspace, file: Path, _columns: Sequence[str]) -> None:
    space.sql(
        f"CREATE OR REPLACE VIEW part AS SELECT * FROM read_csv({_quoted(file)}, header = true, "
        "all_varchar = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', strict_mode = true)"
    )


def _read_ndjson(space: Workspace, file: Path, columns: Sequence[str]) -> None:
    """Keep every value as JSON: a column may hold a text in one row and a number or an object in the next."""
    space.sql(f"CREATE OR REPLACE VIEW objects AS SELECT * FROM read_ndjson_objects({_quoted(file)})")
    present = [
        column
        for column in columns
        if space.count(f"objects WHERE json_exists(json, {_json_path(column)})") or not space.count("objects")
    ]
    values = ", ".join(f'json->{_json_path(column)} AS "{column}"' for column in present) or "1 AS nothing"
    space.sql(f"CREATE OR REPLACE VIEW part AS SELECT {values} FROM objects")


def _read_parquet(space: Workspace, file: Path, _columns: Sequence[str]) -> None:
    space.sql(
        f"CREATE OR REPLACE VIEW part AS SELECT * FROM read_parquet({_quoted(file)}, binary_as_string = true)"
    )


_READERS = {"csv": _read_csv, "ndjson": _read_ndjson, "parquet": _read_parquet}


@contextmanager
def _read(name: str) -> Iterator[None]:
    """Say which file cannot be read, and where, without a word of what it holds."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        place = re.search(r"[Ll]ine:? (\d+)", str(error))
    else:
        return
    where = f" in line {place[1]}" if place else ""
    raise ConfigurationError(
        f"{name} cannot be read{where}: it is not in the format that its ending, or format=, says. Nothing "
        "was sent. The error's text is not shown, because it quotes the file."
    )


def _check_columns(columns: Sequence[str], present: Sequence[str], source: str) -> None:
    known = {name.lower() for name in present}
    missing = [column for column in columns if column.lower() not in known]
    if missing:
        raise ConfigurationError(
            f"{source} has no column {', '.join(map(repr, missing))}, which IdentityMapping names. It has "
            f"{', '.join(map(repr, present))}. Nothing was sent."
        )


def _register(
    space: Workspace, names: Sequence[str], needed: Sequence[int], rows: list[tuple[Any, ...]]
) -> None:
    """Make the view ``part`` of rows; a column of several types becomes JSON, value by value."""
    import pyarrow as pa

    columns, shown = {}, []
    for place in needed:
        values = [row[place] for row in rows]
        name = '"' + names[place].replace('"', '""') + '"'
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


def _plain(value: Any) -> int | str:
    """Say what JSON has no form for: a whole decimal is a number, all else a text."""
    whole = isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value()
    return int(value) if whole else str(value)


def _json_path(column: str) -> str:
    return "'$.\"" + column.replace("'", "''") + "\"'"


def _quoted(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"

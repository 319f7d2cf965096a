"""Files of members: where they are, and how DuckDB reads each format."""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.membership.tables import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from airflow_provider_heapbraze.membership.members import Access
    from airflow_provider_heapbraze.membership.tables import Workspace

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SAMPLE = 1000  # objects of an NDJSON file whose keys are looked at first
LOOKS_LIKE_A_NAME = re.compile(r"[A-Za-z_][A-Za-z_ .-]{0,60}")


def find(uri: str, access: Access) -> list[Any]:
    """Return the files that a path means, in the order of their names.

    A folder means all files below it. Names that begin with a dot or an underscore are passed over, as Spark
    and Hive do.

    :param uri: a file, a folder or a pattern.
    :raises ConfigurationError: there is no such file.
    """
    if not uri.strip():
        raise ConfigurationError("The path of FileMembers is empty. Nothing was sent. Give it a file.")
    path = _path(uri, access)
    if path.is_file():
        return [path]
    found = _files_below(path, "**/*") if path.is_dir() else _files_of_pattern(uri, access)
    if not found:
        raise ConfigurationError(
            f"FileMembers finds no file at {uri}. Nothing was sent. Look at the path; a segment without "
            "anybody is a file without rows."
        )
    return sorted(found, key=str)


def format_of(name: str, given: str | None) -> str:
    """Return the format of a file: the one given, else what its ending says.

    :raises ConfigurationError: it is none that is read.
    """
    ending = re.sub(r"\.(gz|zst)$", "", name.lower()).rpartition(".")[2]
    named = (ending if given in {None, "", "None"} else str(given)).lower()  # a template may render to "None"
    if named not in READERS:
        raise ConfigurationError(
            f"The format of {name} is not known: FileMembers reads {', '.join(READERS)}. Nothing was sent. "
            "Give format= where the file's ending does not say it."
        )
    return named


@contextmanager
def on_disk(path: Any, folder: Path) -> Iterator[Path]:
    """Give a file on the local disk, not compressed, for as long as the context lasts.

    Its name has no wildcard in it, which DuckDB would take for a pattern.

    :raises ConfigurationError: a compressed file is cut off or damaged. DuckDB itself would read what is left
        of a zstd file, and not tell.
    """
    with tempfile.TemporaryDirectory(dir=folder) as own:
        source = storage.fetched(path, Path(own))
        file = Path(own) / "members"
        compression = COMPRESSIONS.get(Path(path.name).suffix.lower())
        if compression is None:
            file.symlink_to(source.absolute())
        else:
            _decompress(source, file, compression, path.name)
        yield file


def csv_query(
    _space: Workspace, file: Path, columns: Sequence[str], name: str
) -> tuple[str, Collection[str]]:
    """Read CSV as RFC 4180 has it: commas, double quotes, a header, every row as long as the header."""
    header = _header(file, name)
    places = [column_place(column, header, name) for column in columns]
    wanted = ", ".join(f"cell_{place} AS c{i}" for i, place in enumerate(places))
    types = ", ".join(f"cell_{place}: 'VARCHAR'" for place in range(len(header)))
    return (
        f"SELECT {wanted} FROM read_csv({literal(file)}, auto_detect = false, header = true, delim = ',', "
        f"quote = '\"', escape = '\"', hive_partitioning = false, columns = {{{types}}})"
    ), columns


def ndjson_query(
    space: Workspace, file: Path, columns: Sequence[str], _name: str
) -> tuple[str, Collection[str]]:
    """Read every value as JSON: a text in one row may be a number or an object in the next.

    A key that is left out is null, as many writers do, even in all of a file; but not every key may be.
    """
    types = ", ".join(f"{literal(column)}: 'JSON'" for column in columns)
    wanted = ", ".join(f"{identifier(column)} AS c{i}" for i, column in enumerate(columns))
    return (
        f"SELECT {wanted} FROM read_json({literal(file)}, format = 'newline_delimited', records = true, "
        f"hive_partitioning = false, columns = {{{types}}})"
    ), _keys(space, file, columns)


def parquet_query(
    space: Workspace, file: Path, columns: Sequence[str], name: str
) -> tuple[str, Collection[str]]:
    """Read Parquet; every file has types of its own."""
    source = f"read_parquet({literal(file)}, hive_partitioning = false)"
    names = [row[0] for row in space.ask(f"DESCRIBE SELECT * FROM {source}")]
    taken = [names[column_place(column, names, name)] for column in columns]
    too_wide = space.ask(f"SELECT name FROM parquet_schema({literal(file)}) WHERE precision > 38")
    if {column for (column,) in too_wide} & set(taken):
        # DuckDB would read them as floating point: as other numbers.
        raise ConfigurationError(
            f"{name} holds decimals of more than 38 digits in a column that IdentityMapping names. Nothing "
            "was sent. Write them as text."
        )
    wanted = ", ".join(f"{identifier(column)} AS c{i}" for i, column in enumerate(taken))
    return f"SELECT {wanted} FROM {source}", columns


# Each returns the query that gives the columns asked for as c0, c1, …; and the names that it saw.
READERS = {"csv": csv_query, "ndjson": ndjson_query, "jsonl": ndjson_query, "parquet": parquet_query}


def column_place(column: str, names: Sequence[str], source: str) -> int:
    """Return the place of a column: the one of that very name, or else of the name in another case.

    :raises ConfigurationError: there is none, or more than one.
    """
    exact = [place for place, name in enumerate(names) if name == column]
    places = exact or [place for place, name in enumerate(names) if name.lower() == column.lower()]
    if not places:
        raise missing_columns([column], names, source)
    if len(places) > 1:
        raise ConfigurationError(
            f"{source} has {len(places)} columns {column!r}, which IdentityMapping names. Nothing was sent. "
            "Keep one of them."
        )
    return places[0]


def missing_columns(columns: Sequence[str], names: Collection[str], source: str) -> ConfigurationError:
    """Return the error for columns that are not there; it names those that are.

    But not where one of them looks like a value: without a header they are the first member's.
    """
    named = all(LOOKS_LIKE_A_NAME.fullmatch(name) for name in names)
    hint = f"Its columns: {', '.join(sorted(names)) or 'none'}." if named else "Is there a header?"
    return ConfigurationError(
        f"{source} has no column {', '.join(map(repr, columns))}, which IdentityMapping names. {hint} "
        "Nothing was sent. Mend the mapping or the source."
    )


def _path(uri: str, access: Access) -> Any:
    path = access.path(uri)
    return storage.local(path) or path


def _files_of_pattern(uri: str, access: Access) -> list[Any]:
    wildcard = re.search(r"[*?[]", uri)
    if wildcard is None:
        return []
    start = uri.rfind("/", 0, wildcard.start()) + 1
    return _files_below(_path(uri[:start] or ".", access), uri[start:])


def _files_below(folder: Any, pattern: str) -> list[Any]:
    depth = len(folder.parts)
    return [
        path
        for path in folder.glob(pattern)
        if path.is_file() and not any(part.startswith((".", "_")) for part in path.parts[depth:])
    ]


def _decompress(source: Path, target: Path, compression: str, name: str) -> None:
    import pyarrow as pa

    try:
        with pa.input_stream(str(source), compression=compression) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except OSError as error:
        if error.errno:
            raise  # the disk's fault, not the file's
        raise ConfigurationError(
            f"{name} is cut off, or not compressed as its ending says. Nothing was sent. Write it again."
        ) from None


def _header(file: Path, name: str) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return [column.strip() for column in next(csv.reader(lines, strict=True), [])]
    except (csv.Error, UnicodeDecodeError):
        raise ConfigurationError(
            f"{name} cannot be read: it does not begin with the header of a CSV file in UTF-8. Nothing was "
            "sent. Mend it, or give format=."
        ) from None


def _keys(space: Workspace, file: Path, columns: Sequence[str]) -> set[str]:
    """Return keys that objects have: those of the first ones, and one that is asked for if there is any."""
    objects = f"read_ndjson_objects({literal(file)})"
    first = f"SELECT json FROM {objects} LIMIT {SAMPLE}"
    keys = {key for (key,) in space.ask(f"SELECT DISTINCT unnest(json_keys(json)) FROM ({first})")}
    if keys.isdisjoint(columns):
        late = (
            column
            for column in columns
            if space.ask(f"SELECT 1 FROM {objects} WHERE json_exists(json, {_pointer(column)}) LIMIT 1")
        )
        keys.update(islice(late, 1))
    return keys


def _pointer(key: str) -> str:
    """Return a JSON pointer: a JSON path would take some keys for patterns."""
    return literal("/" + key.replace("~", "~0").replace("/", "~1"))

"""Part files of a table: Avro, put down as Parquet with only the columns that are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze import storage
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.heap_connect.mixed import NoWholeNumberError, is_mixed, write_parquet
from airflow_provider_heapbraze.membership.tables import identifier, literal

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import polars as pl

    from airflow_provider_heapbraze.heap_connect.contents import Content
    from airflow_provider_heapbraze.membership.tables import Workspace

USER_IDS = {"user_id", "from_user_id", "to_user_id"}
# Of a file without rows, which polars cannot read.
TYPES = {
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
}


@dataclass(frozen=True)
class Part:
    """A part of a table.

    :param known: names of all its columns.
    :param columns: names of those that are needed, with DuckDB's types.
    :param file: Parquet with the columns as ``v0``, ``v1`` and so on, and ``place``: the part's place among
        the table's parts. None where there are no rows.
    """

    known: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    file: Path | None
    rows: int


def put_down(space: Workspace, content: Content, wanted: Collection[str] | None, folder: Path) -> list[Part]:
    """Put down a table's parts in a folder, one at a time.

    :param wanted: names of columns, in lower case; None means all of them.
    :raises ConfigurationError: a file is missing, damaged or cannot be understood.
    """
    parts = [
        _put_down(space, path, place, wanted, folder / f"{place:06d}.parquet")
        for place, path in enumerate(content.files)
    ]
    if parts:
        return parts
    names = tuple(content.columns)
    return [Part(names, tuple((name, "VARCHAR") for name in names), None, 0)]


def _put_down(space: Workspace, path: Path, place: int, wanted: Collection[str] | None, target: Path) -> Part:
    name = "/".join(path.parts[-3:])
    try:
        with storage.local_copy(path) as file:
            fields, has_rows = _header(file, name)
            taken = [column for column in fields if wanted is None or column.lower() in wanted]
            taken = taken or list(fields)[:1]  # rows count, even where no value does
            if len({column.lower() for column in taken}) < len(taken):
                raise ConfigurationError(
                    f"{name} has two columns of one name, but for capital letters. Nothing was sent. Name "
                    "the columns that you need, without *, or have one of them renamed in Heap."
                )
            if not has_rows:
                return Part(
                    tuple(fields), tuple((column, _type(fields[column])) for column in taken), None, 0
                )
            if is_mixed(fields):
                _read_mixed(file, {column: fields[column] for column in taken}, place, target, name)
            else:
                _write(space, _read(file, taken, name), place, target)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{name} is missing, which a manifest names. Nothing was sent. Copy it again from Heap's bucket; "
            "a dump is copied with its manifest last."
        ) from None
    types = [row[1] for row in space.ask(f"DESCRIBE SELECT * EXCLUDE (place) FROM {literal(target)}")]
    rows = space.count(literal(target))
    return Part(tuple(fields), tuple(zip(taken, types, strict=True)), target, rows)


def _header(file: Path, name: str) -> tuple[dict[str, Any], bool]:
    """Return the columns with their Avro types, and whether there are rows."""
    import fastavro

    with file.open("rb") as opened:
        try:
            schema: Any = fastavro.reader(opened).writer_schema
            fields = {column["name"]: column["type"] for column in schema["fields"]}
        except Exception:  # noqa: BLE001 - what a damaged header raises is not documented
            fields = {}
        else:
            return fields, opened.tell() < file.stat().st_size
    raise _unreadable(name)


def _read(file: Path, columns: list[str], name: str) -> pl.DataFrame:
    import polars as pl

    frame = None
    try:
        frame = pl.read_avro(file, columns=columns).select(columns)
        texts = [
            column for column in columns if column.lower() in USER_IDS and frame.schema[column] == pl.String
        ]
        frame = frame.with_columns(pl.col(texts).cast(pl.Int64))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        frame = None
    if frame is None:
        raise _unreadable(name)
    for column in columns:
        if column.lower() in USER_IDS and not frame.schema[column].is_integer():
            raise _no_whole_number(name, column)
    return frame


def _read_mixed(file: Path, fields: dict[str, Any], place: int, target: Path, name: str) -> None:
    ids = {column for column in fields if column.lower() in USER_IDS}
    try:
        write_parquet(file, fields, ids, place, target)
    except NoWholeNumberError as error:
        problem = _no_whole_number(name, str(error))
    except Exception:  # noqa: BLE001 - what damaged rows raise is not documented
        problem = _unreadable(name)
    else:
        return
    raise problem


def _no_whole_number(name: str, column: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} has a {column} that is no whole number. Nothing was sent. HeapConnectMembers reads dumps "
        "as Heap writes them."
    )


def _unreadable(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} cannot be read: it is damaged, cut off, or not the Avro that Heap writes, whose columns "
        "hold texts, numbers, times or null. Nothing was sent. Copy it again from Heap's bucket. What is "
        "wrong is not shown: it would quote the members."
    )


def _write(space: Workspace, frame: pl.DataFrame, place: int, target: Path) -> None:
    cells = ", ".join(f"{identifier(column)} AS v{i}" for i, column in enumerate(frame.columns))
    space.connection.register("incoming", frame.to_arrow())
    space.write(f"SELECT {cells}, {place} AS place FROM incoming", target)
    space.connection.unregister("incoming")


def _type(avro: Any) -> str:
    """Return DuckDB's type for an Avro type, whatever it may be beside null."""
    kinds = [kind for kind in (avro if isinstance(avro, list) else [avro]) if kind != "null"]
    kind = kinds[0] if len(kinds) == 1 else None
    if isinstance(kind, dict):
        return (
            "TIMESTAMP" if "timestamp" in str(kind.get("logicalType")) else TYPES.get(kind["type"], "VARCHAR")
        )
    return TYPES.get(str(kind), "VARCHAR")

"""Part files in which a column has several types, which polars cannot read: they are read row by row."""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

ROWS_AT_ONCE = 10_000


class NoWholeNumberError(Exception):
    """An id is no whole number; the message is the column's name."""


def is_mixed(fields: Mapping[str, Any]) -> bool:
    """Tell whether a column may have values of several types, beside null.

    :param fields: the columns with their Avro types.
    """
    return any(len(_kinds(avro)) > 1 for avro in fields.values())


def write_parquet(
    file: Path, fields: Mapping[str, Any], ids: Collection[str], place: int, target: Path
) -> None:
    """Write columns of an Avro file to Parquet, as ``v0``, ``v1`` and so on and ``place``.

    :param fields: the columns that are needed, with their Avro types.
    :param ids: those that must be whole numbers.
    :raises NoWholeNumberError: an id is none.
    :raises Exception: the file is damaged; which one is not documented.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [pa.int64() if name in ids else _arrow_type(avro) for name, avro in fields.items()]
    schema = pa.schema([*((f"v{i}", kind) for i, kind in enumerate(types)), ("place", pa.int32())])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for rows in _batches(file):
            columns = []
            for name, kind in zip(fields, types, strict=True):
                values = [row[name] for row in rows]
                if name in ids:
                    values = [_whole_number(name, value) for value in values]
                elif pa.types.is_string(kind):
                    values = [None if value is None else _text(value) for value in values]
                columns.append(pa.array(values, kind))
            columns.append(pa.array([place] * len(rows), pa.int32()))
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _batches(file: Path) -> Iterator[list[Any]]:
    import fastavro

    with file.open("rb") as opened:
        rows = fastavro.reader(opened)
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            yield batch


def _kinds(avro: Any) -> list[Any]:
    return [kind for kind in (avro if isinstance(avro, list) else [avro]) if kind != "null"]


def _arrow_type(avro: Any) -> pa.DataType:
    import pyarrow as pa

    kinds = _kinds(avro)
    kind = kinds[0] if len(kinds) == 1 else None
    if isinstance(kind, dict):
        logical = str(kind.get("logicalType"))
        if "timestamp" in logical:
            return pa.timestamp("us")
        kind = logical if logical == "date" else kind["type"]
    types = {
        "boolean": pa.bool_(),
        "int": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "date": pa.date32(),
    }
    return types.get(str(kind), pa.string())


def _whole_number(column: str, value: Any) -> int | None:
    if value is None:
        return None
    with suppress(ValueError, TypeError):
        if not isinstance(value, (bool, float)):
            return int(value)
    raise NoWholeNumberError(column)


def _text(value: Any) -> str:
    """Return a value as DuckDB would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float, date)):
        return str(value)
    raise TypeError

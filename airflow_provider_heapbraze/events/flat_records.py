"""Records of Avro's primitive types, decoded at speed.

Braze's records are flat and wide: thirty fields, most of them nullable texts. Read field by field with a
general library, that is the slowest part of an export; this reads such records, and such only, in less than
half of its time. Null fields are left out. Any other schema is the library's business.
"""

from __future__ import annotations

import struct
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_heapbraze.events.currents import JSON_ENCODED
from airflow_provider_heapbraze.events.properties import SURELY_SHORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Decode = Callable[[bytes, int], tuple[Any, int]]

ONE_BYTE = 0x80
NULLABLE_BRANCHES = 2
# A union's branch is written as its index, doubled.
BRANCH = 2


class Run(NamedTuple):
    """Fields of a flat record, one after another, that are written alike.

    :param null_branch: byte that says null; None where the fields are always there.
    :param decode: None for plain texts.
    """

    names: tuple[str, ...]
    null_branch: int | None
    decode: Decode | None


def flat_runs(schema: dict[str, Any]) -> list[Run] | None:
    """Return the fields of a schema; None where some of them are no primitive values or lists of texts."""
    fields: list[tuple[str, int | None, Decode | None]] = []
    for field in schema["fields"]:
        null_branch, avro_type = _split(field["type"])
        if avro_type == "string":
            fields.append((field["name"], null_branch, _text if field["name"] in JSON_ENCODED else None))
        elif isinstance(avro_type, str) and avro_type in DECODERS:
            fields.append((field["name"], null_branch, DECODERS[avro_type]))
        elif avro_type == {"type": "array", "items": "string"}:
            fields.append((field["name"], null_branch, _texts))
        else:
            return None
    return [
        Run(tuple(name for name, *_ in alike), null_branch, decode)
        for (null_branch, decode), alike in groupby(fields, key=lambda field: field[1:])
    ]


def read_flat(runs: list[Run], data: bytes, count: int) -> Iterator[tuple[dict[str, Any], bool]]:
    """Give the records of a block, and whether all plain texts of each are surely short.

    :param data: of the block, not compressed.
    :param count: records in it.
    :raises ValueError: the data are damaged.
    """
    position, size = 0, len(data)
    for _ in range(count):
        record = {}
        short = True
        for names, null_branch, decode in runs:
            for name in names:
                if null_branch is not None:
                    if data[position] == null_branch:
                        position += 1
                        continue
                    position += 1
                if decode is not None:
                    record[name], position = decode(data, position)
                    continue
                # As in _text(), whose call would cost as much as all of this.
                length = data[position]
                if length < ONE_BYTE:
                    begin = position + 1
                    position = begin + (length >> 1)
                else:
                    length, begin = _length(data, position)
                    position = begin + length
                    short = short and length <= SURELY_SHORT
                record[name] = data[begin:position].decode()
        if position > size:
            raise ValueError("the block ends in a record")
        yield record, short
    if position != size:
        raise ValueError("the block does not end with its last record")


def _split(avro_type: Any) -> tuple[int | None, Any]:
    """Return the byte that says null, and the type of other values."""
    if isinstance(avro_type, list) and len(avro_type) == NULLABLE_BRANCHES and "null" in avro_type:
        null_index = avro_type.index("null")
        return BRANCH * null_index, _plain(avro_type[1 - null_index])
    return None, _plain(avro_type)


def _plain(avro_type: Any) -> Any:
    """Return a type in its short form; with a logical type it stays as it is, and is not known here."""
    if isinstance(avro_type, dict) and avro_type.keys() <= {"type", "avro.java.string"}:
        return avro_type["type"]
    return avro_type


def _long(data: bytes, position: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, lowest first, the sign in the last one (Avro: Primitive types)."""
    value = shift = 0
    byte = data[position]
    while byte >= ONE_BYTE:
        value += (byte - ONE_BYTE) << shift
        shift += 7
        position += 1
        byte = data[position]
    value += byte << shift
    return (value >> 1) ^ -(value & 1), position + 1


def _length(data: bytes, position: int) -> tuple[int, int]:
    if data[position] < ONE_BYTE:
        return data[position] >> 1, position + 1
    length, position = _long(data, position)
    if length < 0:
        raise ValueError("negative length")
    return length, position


def _text(data: bytes, position: int) -> tuple[str, int]:
    length, begin = _length(data, position)
    end = begin + length
    return data[begin:end].decode(), end


def _boolean(data: bytes, position: int) -> tuple[bool, int]:
    if data[position] > 1:
        raise ValueError("no boolean")
    return data[position] == 1, position + 1


def _float(data: bytes, position: int) -> tuple[float, int]:
    return struct.unpack_from("<f", data, position)[0], position + 4


def _double(data: bytes, position: int) -> tuple[float, int]:
    return struct.unpack_from("<d", data, position)[0], position + 8


def _texts(data: bytes, position: int) -> tuple[list[str], int]:
    items: list[str] = []
    while True:
        count, position = _long(data, position)
        if not count:
            return items, position
        if count < 0:  # the block's size in bytes follows
            _, position = _long(data, position)
        for _ in range(abs(count)):
            length, position = _long(data, position)
            if length < 0 or position + length > len(data):
                raise ValueError("the block ends in a text")
            items.append(data[position : position + length].decode())
            position += length


DECODERS: dict[str, Decode] = {
    "int": _long,
    "long": _long,
    "boolean": _boolean,
    "float": _float,
    "double": _double,
}

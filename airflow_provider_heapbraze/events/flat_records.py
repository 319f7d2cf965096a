"""Records of Avro's primitive types, decoded at speed.

Braze's records are flat and wide: thirty fields, most of them nullable texts. Read field by field with a
general library, that is the slowest part of an export; this reads such records, and such only, in two thirds
of its time. Null fields are left out. Any other schema is the library's business.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Decode = Callable[[bytes, int], tuple[Any, int]]

ONE_BYTE = 0x80
NULLABLE_BRANCHES = 2
# A union's branch is written as its index, doubled.
BRANCH = 2


class Field(NamedTuple):
    """A field of a flat record.

    :param null_branch: byte that says null; None where the field is always there.
    :param decode: of values that are no text; None for a text.
    """

    name: str
    null_branch: int | None
    decode: Decode | None


def flat_fields(schema: dict[str, Any]) -> list[Field] | None:
    """Return the fields of a schema; None where some of them are no primitive values or lists of texts."""
    fields = []
    for field in schema["fields"]:
        null_branch, avro_type = _split(field["type"])
        if avro_type == "string":
            fields.append(Field(field["name"], null_branch, None))
        elif isinstance(avro_type, str) and avro_type in DECODERS:
            fields.append(Field(field["name"], null_branch, DECODERS[avro_type]))
        elif avro_type == {"type": "array", "items": "string"}:
            fields.append(Field(field["name"], null_branch, _texts))
        else:
            return None
    return fields


def read_flat(fields: list[Field], data: bytes, count: int) -> Iterator[dict[str, Any]]:
    """Give the records of a block.

    :param data: of the block, not compressed.
    :param count: records in it.
    :raises ValueError: the data are damaged.
    """
    position, size = 0, len(data)
    for _ in range(count):
        record = {}
        for name, null_branch, decode in fields:
            if null_branch is not None:
                position += 1
                if data[position - 1] == null_branch:
                    continue
            if decode is not None:
                record[name], position = decode(data, position)
                continue
            length = data[position]
            if length < ONE_BYTE:
                length >>= 1
                position += 1
            else:
                length, position = _long(data, position)
            if length < 0:
                raise ValueError("negative length")
            end = position + length
            record[name] = data[position:end].decode()
            position = end
        if position > size:
            raise ValueError("the block ends in a record")
        yield record
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
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < ONE_BYTE:
            return (value >> 1) ^ -(value & 1), position
        shift += 7


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

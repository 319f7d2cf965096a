"""Currents' Avro files: the records of an object container file, and what its schema says about them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_heapbraze.events.currents import from_record, layout_of, normal_type
from airflow_provider_heapbraze.events.errors import FileSetAsideError
from airflow_provider_heapbraze.events.flat_records import flat_runs, read_flat
from airflow_provider_heapbraze.events.properties import SURELY_SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import fastavro
    from pyroaring import BitMap

    from airflow_provider_heapbraze.events.currents import EventReader, Fields, Layout
    from airflow_provider_heapbraze.events.flat_records import Run

MAGIC = b"Obj\x01"
# Braze: Currents in storage: the type stands in the schema's name behind this, and personal fields say so.
TYPE_FOLLOWS = ".inner."
PERSONAL_MARK = "[PII]"
CODECS = ("null", "deflate", "snappy", "bzip2", "xz")


@dataclass(frozen=True)
class RecordFacts:
    """What a schema says beyond the types.

    :param event_type: empty where the schema's name does not hold it.
    :param personal: fields that hold personal data.
    :param short_floats: fields of Avro's 32-bit type ``float``.
    :param flat_runs: all fields, where every one is plain enough to be read at speed.
    :param layout: of records that were read so, and whose texts are short.
    """

    event_type: str
    personal: frozenset[str]
    short_floats: tuple[str, ...]
    flat_runs: list[Run] | None
    layout: Layout | None


def read_avro(file: IO[bytes], event_type: str, done: BitMap) -> EventReader:
    """Give the events of a file whose rows are not done, with their row numbers.

    :param event_type: as the path says it, for schemas that do not.
    :param done: rows to pass over; blocks of nothing else are not decoded.
    :returns: the number of events in the file.
    :raises FileSetAsideError: the file is cut off, damaged or not of Currents.
    """
    blocks, facts = _open(file)
    named = facts.event_type or normal_type(event_type)
    row, some_done = 0, bool(done)
    try:
        for block in blocks:
            if done.contains_range(row, row + block.num_records):
                row += block.num_records
                continue
            for record, short in _records(block, facts.flat_runs):
                if not (some_done and row in done):
                    for name in facts.short_floats:
                        if record.get(name) is not None:
                            record[name] = short_float(record[name])
                    yield row, from_record(record, named, facts.personal, facts.layout if short else None)
                row += 1
    except FileSetAsideError as error:
        error.rows = row
        raise
    except Exception as error:
        # fastavro and its codecs raise many kinds; a wrong length may ask for all the memory there is.
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault, not the file's
        kind = type(error).__name__
        raise FileSetAsideError(f"it is cut off or damaged after {row:,} events ({kind})", rows=row) from None
    return row


def _open(file: IO[bytes]) -> tuple[fastavro.block_reader, RecordFacts]:
    import fastavro

    try:
        blocks = fastavro.block_reader(file)
        schema = json.loads(blocks.metadata["avro.schema"])
        codec = str(blocks.metadata.get("avro.codec", "null"))
    except FileSetAsideError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise  # as above
        kind = type(error).__name__
        raise FileSetAsideError(f"it is cut off or damaged: its header cannot be read ({kind})") from None
    if codec not in CODECS:
        raise FileSetAsideError(
            f"its Avro codec is {codec[:20]!r}, which is not read here; {', '.join(CODECS)} are"
        )
    return blocks, record_facts(schema)


def _records(block: Any, runs: list[Run] | None) -> Iterator[tuple[Fields, bool]]:
    if runs is not None:
        return read_flat(runs, block.bytes_.read(), block.num_records)
    return _nested_records(block)


def _nested_records(block: Any) -> Iterator[tuple[Fields, bool]]:
    for record in block:
        yield record, False
    if block.bytes_.read(1):
        raise ValueError("the block does not end with its last record")


def record_facts(schema: Any) -> RecordFacts:
    """Read what the schema of a file says.

    :raises FileSetAsideError: it is not the schema of a record with an id.
    """
    fields = schema.get("fields") if isinstance(schema, dict) else None
    if not isinstance(fields, list) or not any(field["name"] == "id" for field in fields):
        raise FileSetAsideError("it is Avro, but its records are no events of Currents: they have no id")
    name = schema["name"] if "." in schema["name"] else f"{schema.get('namespace') or ''}.{schema['name']}"
    _, found, event_type = name.partition(TYPE_FOLLOWS)
    runs = flat_runs(schema)
    return RecordFacts(
        event_type=normal_type(event_type) if found else "",
        personal=frozenset(
            field["name"] for field in fields if PERSONAL_MARK in str(field.get("doc") or "").upper()
        ),
        short_floats=tuple(field["name"] for field in fields if _is_float(field["type"])),
        flat_runs=runs,
        layout=_layout(runs) if runs else None,
    )


def _layout(runs: list[Run]) -> Layout | None:
    names = tuple(name for run in runs for name in run.names)
    not_texts = frozenset(name for run in runs if run.decode for name in run.names)
    # Dots stand for what is nested, and long names are cut: such fields need a look, each time.
    plain = all(name.isidentifier() and len(name) <= SURELY_SHORT for name in names)
    return layout_of(names, not_texts) if plain else None


@lru_cache(maxsize=4096)
def short_float(value: float) -> float:
    """Return a 32-bit number as it was written: 9.99, where its 64-bit value is 9.989999771118164."""
    for digits in range(6, 9):
        text = f"{value:.{digits}g}"
        if struct.pack("f", float(text)) == struct.pack("f", value):
            return float(text)
    return float(f"{value:.9g}")


def _is_float(avro_type: Any) -> bool:
    return "float" in avro_type if isinstance(avro_type, list) else avro_type == "float"

"""Sample Currents events for tests, in all their forms. make_fixtures.py wrote the files read here."""

from __future__ import annotations

import functools
import io
import json
import struct
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import fastavro

HERE = Path(__file__).parent
TYPES: list[str] = sorted(path.stem for path in (HERE / "avro").glob("*.avro"))

FIRST_TIME = 1_764_000_000
IDENTITIES = 500
_NAMESPACE = uuid.UUID("6f0f5c1e-6b8c-4f0e-9a53-0d3f3a0f7c11")


def avro_path(event_type: str) -> Path:
    """Where the Avro file of this type is."""
    return HERE / "avro" / f"{event_type}.avro"


def flat_path(event_type: str) -> Path:
    """Where the same events are as JSON lines with unions spelt out."""
    return HERE / "flat" / f"event_type={event_type}" / "events.json"


def records(event_type: str) -> list[dict[str, Any]]:
    """Flat records as the Avro file gives them: a float has its 32-bit value (9.989999771118164)."""
    with avro_path(event_type).open("rb") as file:
        return [dict(record) for record in fastavro.reader(file)]


def schema(event_type: str) -> dict[str, Any]:
    """The schema as it stands in the Avro file: short name, namespace and docs."""
    with avro_path(event_type).open("rb") as file:
        return json.loads(fastavro.reader(file).metadata["avro.schema"])


def http_events(event_type: str) -> list[dict[str, Any]]:
    """The same events in Custom HTTP form; none for the types that have no such form."""
    with (HERE / "http.jsonl").open(encoding="utf-8") as file:
        events = [json.loads(line) for line in file]
    return [event for event in events if event["event_type"] == event_type]


def pii_fields(event_type: str) -> set[str]:
    """Names of the fields that the schema's docs mark as personal data."""
    return {field["name"] for field in schema(event_type)["fields"] if field["doc"].startswith("[PII]")}


def write_avro(
    path: Path,
    schema: dict[str, Any],
    records: Iterable[dict[str, Any]],
    codec: str = "null",
    *,
    sync_marker: bytes = b"",
) -> None:
    """Write an Avro container file; folders are made. The sync marker is random unless given (16 bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fastavro.writer(file, schema, records, codec=codec, sync_marker=sync_marker)


def codecs() -> list[str]:
    """Which codecs write_avro can write here: fastavro needs a further package for some."""
    return [codec for codec in ("null", "deflate", "snappy", "zstandard") if _can_write(codec)]


def with_unions(record: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Spell the record's unions out, as `avro-tools tojson` does; floats get their short decimal."""
    return {field["name"]: _spelt_out(record[field["name"]], field["type"]) for field in schema["fields"]}


def short_float(value: float) -> float:
    """Shortest decimal that stands for the same 32-bit float: 9.989999771118164 becomes 9.99."""
    bits = struct.pack("<f", value)
    shorter = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next(short for short in shorter if struct.pack("<f", short) == bits)


def http_batch(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Make the body of one Custom HTTP request."""
    return {"events": list(events)}


def numbered(
    count: int, *, hot: str | None = None, share: float = 0.0, start: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield the CustomEvent flat records number `start` up to `start + count`, each with its own id.

    They are spread evenly over 500 identities, none of which is in the fixtures, except that `share` of them
    have the external_user_id `hot`. What a number stands for does not depend on where a call starts.
    """
    if share and hot is None:
        raise ValueError("a share needs somebody to have it: say who is hot")
    for number in range(start, start + count):
        hot_before, hot_after = (int(n * share + 1e-9) for n in (number, number + 1))
        if hot_after > hot_before:
            person = str(hot)
        else:
            person = f"person-{900_000 + (number - hot_before) % IDENTITIES}-private"
        yield _custom_event(number, person)


def _can_write(codec: str) -> bool:
    try:
        fastavro.writer(io.BytesIO(), "string", ["x"], codec=codec)
    except ValueError:  # fastavro's word for a missing package
        return False
    return True


def _spelt_out(value: Any, avro_type: Any) -> Any:
    if isinstance(avro_type, list):
        if value is None:
            return None
        branch = next(member for member in avro_type if member != "null")
        name = branch["type"] if isinstance(branch, dict) else branch
        return {name: _spelt_out(value, branch)}
    return short_float(value) if avro_type == "float" else value


@functools.cache
def _user_id(external_user_id: str) -> str:
    return uuid.uuid5(_NAMESPACE, external_user_id).hex[:24]


def _custom_event(number: int, external_user_id: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid5(_NAMESPACE, f"numbered {number}")),
        "user_id": _user_id(external_user_id),
        "external_user_id": external_user_id,
        "app_id": "5f0c7a52-0000-4000-8000-000000000001",
        "time": FIRST_TIME + number,
        "timezone": "Europe/Berlin",
        "platform": "ios",
        "os_version": "18.1",
        "device_model": "iPhone 16",
        "device_id": f"device-{number % 1000:04}",
        "name": "Order Placed",
        "properties": json.dumps({"number": number, "plan": "gold", "total": 9.99, "first": number == 0}),
        "ad_id": None,
        "ad_id_type": None,
        "ad_tracking_enabled": False,
        "app_group_id": "5f0c7a52-0000-4000-8000-000000000002",
    }

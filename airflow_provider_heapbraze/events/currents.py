"""One shape for a Currents event, whichever form it came in (Braze: Currents event schemas).

Flat records (Avro, or its JSON with the unions spelt out) have all fields side by side. Custom HTTP events
have ``user`` and ``properties`` in them. Both become one flat set of fields under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Fields = dict[str, Any]

NOT_PERSONAL: frozenset[str] = frozenset()
# The same fact under another name in the Custom HTTP form; storage's name is the one kept.
STORAGE_NAMES = {
    "custom_properties": "properties",
    "purchase_properties": "properties",
    "canvas_step_message_variation_api_id": "canvas_step_message_variation_id",
}
# Storage holds these as JSON in a text, the Custom HTTP form as objects.
JSON_ENCODED = ("properties", "custom_attributes")
# Outside of users.*, and named with or without it.
NO_USERS_PREFIX = ("users.agentconsole.", "users.contentoptimizer.")

# A number from here on is in milliseconds, microseconds, nanoseconds: in seconds it would be after year 5138.
FIRST_MILLISECONDS = 100_000_000_000
UNIT = 1000
DEEPEST = 32
FIRST_IMPOSSIBLE = FIRST_MILLISECONDS * UNIT**3  # even in nanoseconds


@dataclass(frozen=True, eq=False)
class Layout:
    """What is known of many events' fields before one of them is looked at.

    :param names: of all fields that the events may have; short, and without dots.
    :param not_texts: names of those that may hold something else than a short text.
    """

    names: tuple[str, ...]
    not_texts: frozenset[str]

    @cached_property
    def is_ready(self) -> bool:
        """Tell whether the fields are an event's own already, and say nothing of its type."""
        return {"event_type", *JSON_ENCODED}.isdisjoint(self.names)


@lru_cache(maxsize=512)
def layout_of(names: tuple[str, ...], not_texts: frozenset[str]) -> Layout:
    """Return the layout: one object in all files, so that what is made ready for it serves all of them."""
    return Layout(names, not_texts)


class CurrentsEvent(msgspec.Struct):
    """One event.

    :param type: for example ``users.messages.email.Open``; empty where nothing says it.
    :param fields: everything that the event has, flat, ``id``, ``time`` and the user's ids among it.
    :param personal: names of fields that the file's own schema marks as personal data.
    :param layout: None where the fields may be any.
    """

    type: str
    fields: Fields
    personal: frozenset[str] = NOT_PERSONAL
    layout: Layout | None = None


# Rows and events as a reader gives them; at its end it returns how many rows there were.
EventReader = Generator[tuple[int, CurrentsEvent], None, int]


def from_record(
    record: Fields,
    event_type: str,
    personal: frozenset[str] = NOT_PERSONAL,
    layout: Layout | None = None,
) -> CurrentsEvent:
    """Take a flat record; it is changed.

    :param event_type: in its normal form, as the schema or the path say it; a field of the record says it
        better.
    """
    if layout is not None and layout.is_ready:
        return CurrentsEvent(event_type, record, personal, layout)
    named = record.pop("event_type", None)
    for name in JSON_ENCODED:
        if name in record:
            record[name] = _decoded(record[name])
    return CurrentsEvent(normal_type(named) if named else event_type, record, personal, layout)


def is_http(event: Mapping[str, Any]) -> bool:
    """Tell whether an event is of the Custom HTTP form; a flat one may have ``properties``, too: a text."""
    properties = event.get("properties")
    nested = isinstance(properties, dict) and not (len(properties) == 1 and AVRO_TYPES & properties.keys())
    return isinstance(event.get("user"), dict) or (nested and "event_type" in event)


def from_http(event: Mapping[str, Any], event_type: str = "") -> CurrentsEvent:
    """Take a Custom HTTP event.

    :param event_type: as the path says it, where the event does not.
    """
    fields: Fields = {}
    for part in (event.get("properties"), event.get("user")):
        if isinstance(part, dict):
            fields.update(part)
    for name, value in event.items():
        if name not in {"event_type", "properties", "user"}:
            fields[name] = value
    for name, storage_name in STORAGE_NAMES.items():
        if name in fields:
            fields[storage_name] = fields.pop(name)
    return from_record(fields, normal_type(str(event.get("event_type") or event_type)))


def normal_type(name: object) -> str:
    """Return the name of an event type in the one form that both sides share."""
    return _normal_type(name) if isinstance(name, str) else ""


@lru_cache(maxsize=4096)
def _normal_type(name: str) -> str:
    text = name.strip()
    return text.removeprefix("users.") if text.startswith(NO_USERS_PREFIX) else text


def without_unions_of(record: Fields) -> Fields:
    """Undo Avro's spelling of unions in JSON: ``{"string": "x"}`` is ``x``. Null fields are left out."""
    plain: Fields = {}
    for name, value in record.items():
        if type(value) is dict and len(value) == 1:
            (kind,) = value
            if kind in AVRO_TYPES:
                value = value[kind]  # noqa: PLW2901 - what the union holds
                if type(value) is not str:
                    value = _without_unions(value)  # noqa: PLW2901
        if value is not None:
            plain[name] = value
    return plain


def _without_unions(value: Any, depth: int = 0) -> Any:
    if type(value) is list and depth < DEEPEST:
        return [_without_unions(item, depth + 1) for item in value]
    if type(value) is dict and len(value) == 1 and depth < DEEPEST:
        (kind,) = value
        return _without_unions(value[kind], depth + 1) if kind in AVRO_TYPES else value
    return value


AVRO_TYPES = frozenset(
    {"null", "boolean", "int", "long", "float", "double", "bytes", "string", "array", "map"}
)


def epoch_seconds(value: Any) -> tuple[float, bool] | None:
    """Read the time of an event.

    :returns: seconds since 1970 (UTC), and whether it came in a finer unit than seconds; None where it is no
        time: missing, zero, negative or no number.
    """
    if type(value) is not int:
        value = _as_number(value)
    if value is None or not 0 < value < FIRST_IMPOSSIBLE:
        return None
    finer = False
    while value >= FIRST_MILLISECONDS:
        value, finer = value / UNIT, True
    return value, finer


def _as_number(value: Any) -> float | int | None:
    if isinstance(value, str):
        return _number(value)
    if isinstance(value, datetime):  # Avro's own kind of time
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _number(text: str) -> float | int | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _decoded(value: Any) -> Any:
    """Return what a JSON text holds; the text itself where it is no JSON of an object."""
    if not isinstance(value, str):
        return value
    try:
        decoded = parse(value.encode())
    except ValueError:
        return value
    return decoded if isinstance(decoded, dict) else value


def parse(text: bytes) -> Any:
    """Parse JSON: quickly, and where that finds fault, as tolerantly as Python does (a lone surrogate, NaN).

    :raises UnicodeDecodeError: it is no UTF-8.
    :raises ValueError: it is no JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None

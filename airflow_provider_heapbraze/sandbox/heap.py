"""Heap's write API (Heap: Track, Add user properties), and the token that its connection test asks for."""

from __future__ import annotations

import base64
import math
import re
import secrets
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_heapbraze.sandbox.exchange import Endpoint, Refusal, Reply, Work

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from airflow_provider_heapbraze.sandbox.exchange import Call
    from airflow_provider_heapbraze.sandbox.world import World

MOST_ITEMS = 1_000
MOST_TEXT = 1_024
MOST_IDENTITY = 255
MOST_USER_ID = 2**53 - 1

Value = int | float | str
Person = tuple[str, str]  # "identity" or "user_id", and its value


class Event(NamedTuple):
    """An event that Heap holds."""

    person: Person
    event: str
    timestamp: str | None
    idempotency_key: str | None
    properties: dict[str, Value]


@dataclass
class Heap:
    """All that Heap holds: users with their properties, and events, each once.

    :param sends: how often events arrived in valid requests, whatever was answered, by idempotency key.
    """

    users: dict[Person, dict[str, Value]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    duplicates: int = 0
    sends: Counter[str] = field(default_factory=Counter)
    _seen: set[str] = field(default_factory=set)

    def track(self, event: Event) -> None:
        """Keep an event; of those with one idempotency key the first stays."""
        if event.idempotency_key is not None:
            if event.idempotency_key in self._seen:
                self.duplicates += 1
                return
            self._seen.add(event.idempotency_key)
        self.users.setdefault(event.person, {})
        self.events.append(event)


def authorise_app(world: World, _: Endpoint, call: Call) -> None:
    """Refuse an unknown ``app_id``, the only credential of the write API."""
    if not isinstance(call.body, dict):
        raise Refusal(400, "Body must be a JSON object")
    if call.body.get("app_id") != world.settings.heap_app_id:
        raise Refusal(400, "app_id is not valid")


def authorise_basic(world: World, _: Endpoint, call: Call) -> None:
    """Refuse a wrong app id or API key in HTTP Basic."""
    pair = f"{world.settings.heap_app_id}:{world.settings.heap_api_key}".encode()
    if call.headers.get("authorization") != f"Basic {base64.b64encode(pair).decode()}":
        raise Refusal(401, "Invalid app id or API key")


def prepare_track(world: World, call: Call) -> Work:
    """Take one event, or up to 1,000; one bad event refuses them all.

    That they were sent is counted here, before it is known what becomes of them.
    """
    events = [_event(item) for item in _items(call.body, "events")]
    world.heap.sends.update(event.idempotency_key for event in events if event.idempotency_key is not None)

    def apply() -> Reply:
        if any(_is_poisoned(event, world.faults.poison) for event in events):
            raise Refusal(400, "An event is not valid")
        for event in events:
            world.heap.track(event)
        return Reply(204)

    return Work(apply, ids=_count(event.person for event in events))


def prepare_user_properties(world: World, call: Call) -> Work:
    """Take the properties of one user, or of up to 1,000; an unknown identity makes a user."""
    changes = [(("identity", _identity(item)), _user_properties(item)) for item in _items(call.body, "users")]

    def apply() -> Reply:
        for person, properties in changes:
            world.heap.users.setdefault(person, {}).update(properties)
        return Reply(204)

    return Work(apply, ids=_count(person for person, _ in changes))


def prepare_token(_: World, __: Call) -> Work:
    """Give an access token."""
    return Work(lambda: Reply(200, {"access_token": secrets.token_urlsafe(24)}))


def _events_in(call: Call) -> int:
    events = call.body.get("events", [None])
    return len(events) if isinstance(events, list) else 1


def _persons_in(call: Call) -> Counter[Hashable]:
    # The limit comes before the contract: what cannot be read counts for nobody.
    events = call.body.get("events", [call.body])
    items = [item for item in events if isinstance(item, dict)] if isinstance(events, list) else []
    return Counter(
        (kind, item[kind])
        for kind in ("identity", "user_id")
        for item in items
        if isinstance(item.get(kind), str)
    )


def _items(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = body.get(name, [body])
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise Refusal(400, f"{name} must be a non-empty array of objects")
    if len(items) > MOST_ITEMS:
        raise Refusal(400, f"At most 1,000 {name} per request")
    return items


def _event(item: dict[str, Any]) -> Event:
    name = item.get("event")
    if not isinstance(name, str) or not 0 < len(name) <= MOST_TEXT:
        raise Refusal(400, "event must be a string of 1 to 1,024 characters")
    timestamp, key = item.get("timestamp"), item.get("idempotency_key")
    if timestamp is not None and not _is_time(timestamp):
        raise Refusal(400, "timestamp must be ISO 8601 with an offset")
    if key is not None and (not isinstance(key, str) or not key):
        raise Refusal(400, "idempotency_key must be a non-empty string")
    return Event(_person(item), name, timestamp, key, _properties(item.get("properties", {})))


def _is_poisoned(event: Event, poison: frozenset[str]) -> bool:
    kind, value = event.person
    return event.idempotency_key in poison or (kind == "identity" and value in poison)


def _person(item: dict[str, Any]) -> Person:
    if ("identity" in item) == ("user_id" in item):
        raise Refusal(400, "Exactly one of identity and user_id is required")
    if "identity" in item:
        return "identity", _identity(item)
    user_id = item["user_id"]
    if (
        not isinstance(user_id, str)
        or not re.fullmatch("[0-9]{1,16}", user_id)
        or int(user_id) > MOST_USER_ID
    ):
        raise Refusal(400, "user_id must be a decimal string from 0 to 2^53-1")
    return "user_id", user_id


def _identity(item: dict[str, Any]) -> str:
    identity = item.get("identity")
    if not isinstance(identity, str) or not 0 < len(identity) <= MOST_IDENTITY:
        raise Refusal(400, "identity must be a string of 1 to 255 characters")
    return identity


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _user_properties(item: dict[str, Any]) -> dict[str, Value]:
    properties = _properties(item.get("properties"))
    if any(name.lower() == "id" for name in properties):
        raise Refusal(400, "A property may not be called id")
    return properties


def _properties(value: object) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise Refusal(400, "properties must be an object")
    if _are_plain(value):
        return value
    if any(len(name) >= MOST_TEXT for name in value):
        raise Refusal(400, "Property names must have fewer than 1,024 characters")
    return {name: _value(item) for name, item in value.items()}


def _are_plain(properties: dict[str, Any]) -> bool:
    # Most are short texts and whole numbers: a call for each of them would take most of a request's time.
    for name, value in properties.items():
        kind = type(value)
        if len(name) >= MOST_TEXT or (kind is not int and (kind is not str or len(value) >= MOST_TEXT)):
            return False
    return True


def _value(value: object) -> Value:
    if isinstance(value, list):
        return "||".join(str(_scalar(item)) for item in value)[:MOST_TEXT]
    return _scalar(value)


def _scalar(value: object) -> Value:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Refusal(400, "Property values must be numbers or strings")
    if isinstance(value, float) and not math.isfinite(value):
        raise Refusal(400, "Property values must be finite")
    if isinstance(value, str) and len(value) >= MOST_TEXT:
        raise Refusal(400, "Property values must have fewer than 1,024 characters")
    return value


def _count(persons: Iterable[Person]) -> dict[str, dict[str, int]]:
    return {"set": dict(Counter(kind for kind, _ in persons))}


# Heap documents no rate limit headers, and no limit of the body's size.
ENDPOINTS = (
    Endpoint(
        "heap-track",
        "POST",
        "/api/track",
        group="heap",
        authorise=authorise_app,
        prepare=prepare_track,
        cost=_events_in,
        persons=_persons_in,
        tells_limit=False,
    ),
    Endpoint(
        "heap-user-properties",
        "POST",
        "/api/add_user_properties",
        group="heap",
        authorise=authorise_app,
        prepare=prepare_user_properties,
        tells_limit=False,
    ),
    Endpoint(
        "heap-auth-token",
        "POST",
        "/api/public/v0/auth_token",
        group="heap",
        authorise=authorise_basic,
        prepare=prepare_token,
        tells_limit=False,
    ),
)

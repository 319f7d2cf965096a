"""Braze's REST API: its keys, and ``/users/track`` for attributes."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.sandbox.cohorts import LARGEST_BODY, MOST_EXTERNAL_ID_BYTES
from airflow_provider_heapbraze.sandbox.exchange import Endpoint, Refusal, Reply, Work

if TYPE_CHECKING:
    from airflow_provider_heapbraze.sandbox.exchange import Call
    from airflow_provider_heapbraze.sandbox.people import Alias, User
    from airflow_provider_heapbraze.sandbox.world import World

IDENTIFIERS = ("external_id", "user_alias", "braze_id")
# Email and phone name a user only where nothing else does; beside an external id they are profile fields.
FALLBACK_IDENTIFIERS = ("email", "phone")
CONTROLS = frozenset({"_update_existing_only", "_merge_objects", "push_token_import"})
# Fields of a Braze profile (Braze: User attributes object): none of them can serve as a boolean of one's own.
PROFILE_FIELDS = frozenset(
    {
        "app_id",
        "country",
        "current_location",
        "date_of_first_session",
        "date_of_last_session",
        "dob",
        "email",
        "email_subscribe",
        "first_name",
        "gender",
        "home_city",
        "image_url",
        "language",
        "last_name",
        "phone",
        "push_subscribe",
        "push_tokens",
        "time_zone",
    }
)
ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_]{1,255}")


class _RowError(Exception):
    """A row is refused; the others are processed."""


def authorise(world: World, endpoint: Endpoint, call: Call) -> None:
    """Refuse a wrong or missing key (401), and a key that may not do this (403)."""
    if call.headers.get("authorization") != f"Bearer {world.settings.rest_api_key}":
        raise Refusal(401, "Invalid API key")
    if endpoint.permission not in world.settings.permissions:
        raise Refusal(403, "The API key does not have the permission that this endpoint needs")


def prepare_track(world: World, call: Call) -> Work:
    """Write attributes, row by row; a row that is refused is reported, the rest is processed.

    Events and purchases count toward the number of objects, and are otherwise refused here. Users are known
    by external id and alias; rows with another identifier are taken and find nobody.
    """
    body = call.json_object()
    arrays = {name: body.get(name, []) for name in ("attributes", "events", "purchases")}
    for name, array in arrays.items():
        if not isinstance(array, list):
            raise Refusal(400, f"{name} must be an array of objects")
    if sum(map(len, arrays.values())) > world.settings.attributes_per_request:
        raise Refusal(400, "Max Input Length Exceeded")
    if arrays["events"] or arrays["purchases"]:
        raise Refusal(400, "The sandbox takes attributes only")
    rows = arrays["attributes"]
    if not rows:
        raise Refusal(400, "No attributes, events or purchases")
    return Work(lambda: _track(world, rows), ids={"set": _kinds(rows)})


def _kinds(rows: list[Any]) -> dict[str, int]:
    names = (*IDENTIFIERS, *FALLBACK_IDENTIFIERS)
    found = (next((n for n in names if n in row), None) for row in rows if isinstance(row, dict))
    counts = Counter("alias" if name == "user_alias" else name for name in found if name is not None)
    return dict(counts)


def _track(world: World, rows: list[Any]) -> Reply:
    errors = []
    for index, row in enumerate(rows):
        try:
            _track_row(world, row)
        except _RowError as error:
            errors.append({"type": str(error), "input_array": "attributes", "index": index})
    body = {"message": "success", "attributes_processed": len(rows) - len(errors)}
    return Reply(201, {**body, "errors": errors} if errors else body)


def _track_row(world: World, row: Any) -> None:
    if not isinstance(row, dict):
        raise _RowError("attributes must be objects")
    identifier = _identifier(row)
    external_id, alias = _external_id(row), _alias(row)
    if external_id in world.faults.poison:
        raise _RowError("BLACKLISTED_EXTERNAL_USER_ID")
    attributes = {name: value for name, value in row.items() if name not in {identifier, *CONTROLS}}
    for name, value in attributes.items():
        _check_attribute(name, value)
    user = _user(world, row, external_id, alias)
    if user is not None:
        for name, value in attributes.items():
            world.set_attribute(user, name, value)


def _identifier(row: dict[str, Any]) -> str:
    given = [name for name in IDENTIFIERS if name in row]
    if len(given) > 1:
        raise _RowError("Only one of 'external_id', 'user_alias' and 'braze_id' is allowed")
    fallback = [name for name in FALLBACK_IDENTIFIERS if name in row]
    if not given and not fallback:
        raise _RowError("One of 'external_id', 'user_alias', 'braze_id', 'email' or 'phone' is required")
    return (given + fallback)[0]


def _external_id(row: dict[str, Any]) -> str | None:
    if "external_id" not in row:
        return None
    value = row["external_id"]
    if not isinstance(value, str) or not value:
        raise _RowError("'external_id' must be a non-empty string")
    if len(value.encode("utf-8", "surrogatepass")) > MOST_EXTERNAL_ID_BYTES:
        raise _RowError("'external_id' must be fewer than 988 bytes")
    return value


def _alias(row: dict[str, Any]) -> Alias | None:
    if "user_alias" not in row:
        return None
    value = row["user_alias"]
    name, label = (
        (value.get("alias_name"), value.get("alias_label")) if isinstance(value, dict) else (None, None)
    )
    if not isinstance(name, str) or not isinstance(label, str) or not name or not label:
        raise _RowError("'user_alias' must have 'alias_name' and 'alias_label'")
    return name, label


def _check_attribute(name: str, value: object) -> None:
    if not ATTRIBUTE_NAME.fullmatch(name):
        raise _RowError("Attribute names are letters, digits and underscores, at most 255 of them")
    if name in PROFILE_FIELDS and isinstance(value, bool):
        raise _RowError("Attribute name is reserved")


def _user(world: World, row: dict[str, Any], external_id: str | None, alias: Alias | None) -> User | None:
    """Return whom a row means. One that Braze does not know is created, unless the row says not to."""
    if external_id is not None:
        user = world.people.by_external_id.get(external_id)
    else:
        user = world.people.by_alias.get(alias) if alias is not None else None
    can_create = external_id is not None or alias is not None
    if user is None and can_create and row.get("_update_existing_only") is not True:
        world.created_users += 1
        return world.people.create(external_id, alias)
    if user is None:
        world.ignored["unknown"] += 1
    return user


ENDPOINTS = (
    Endpoint(
        "users-track",
        "POST",
        "/users/track",
        group="track",
        authorise=authorise,
        prepare=prepare_track,
        largest_body=LARGEST_BODY,
        permission="users.track",
    ),
)

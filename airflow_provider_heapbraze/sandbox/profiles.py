"""What exports show of a user, and the export of single users: ``/users/export/ids``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.sandbox.cohorts import LARGEST_BODY
from airflow_provider_heapbraze.sandbox.exchange import Endpoint, Refusal, Reply, Work
from airflow_provider_heapbraze.sandbox.rest import PROFILE_FIELDS, authorise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_heapbraze.sandbox.exchange import Call
    from airflow_provider_heapbraze.sandbox.people import Alias, User
    from airflow_provider_heapbraze.sandbox.reading import Reading
    from airflow_provider_heapbraze.sandbox.world import World

MOST_IDS = 50
# Whether Braze shows a device's id is not documented: here nobody can rely on it.
DEVICE = {"model": "Pixel 8", "os": "Android (15)"}


def _user_aliases(_: Reading, user: User) -> list[dict[str, str]]:
    return [{"alias_name": name, "alias_label": label} for name, label in user.aliases]


def _custom_attributes(reading: Reading, user: User) -> dict[str, Any]:
    values = reading.attributes(user)
    return _present({name: value for name, value in values.items() if name not in PROFILE_FIELDS})


def _profile_field(name: str, reading: Reading, user: User) -> Any:
    return reading.attribute(user, name)


FIELDS: dict[str, Callable[[Reading, User], Any]] = {
    "external_id": lambda _, user: user.external_id,
    "user_aliases": _user_aliases,
    "braze_id": lambda _, user: user.braze_id,
    "custom_attributes": _custom_attributes,
    "devices": lambda _, user: [DEVICE for _ in user.device_ids],
    **{name: partial(_profile_field, name) for name in sorted(PROFILE_FIELDS)},
}


def profile(reading: Reading, user: User, fields: Iterable[str]) -> dict[str, Any]:
    """Return the fields that a user has; what is null, false or empty is left out, as Braze does."""
    return _present({name: FIELDS[name](reading, user) for name in fields if name in FIELDS})


def _present(values: dict[str, Any]) -> dict[str, Any]:
    # To Python False is 0, which is a value.
    return {name: value for name, value in values.items() if value or (value == 0 and value is not False)}


def fields_to_export(body: dict[str, Any]) -> list[str]:
    """Read which fields an export is to show; one that the sandbox does not have shows nothing."""
    fields = body.get("fields_to_export")
    if not isinstance(fields, list) or not fields or not all(isinstance(name, str) for name in fields):
        raise Refusal(400, "fields_to_export must be a non-empty array of strings")
    return fields


def prepare_ids_export(world: World, call: Call) -> Work:
    """Show users by external id, alias, device id or email address; all fields where none are named."""
    body = call.json_object()
    external_ids, aliases = _external_ids(body), _aliases(body)
    device_id, email = _text(body, "device_id"), _text(body, "email_address")
    if len(external_ids) + len(aliases) > MOST_IDS:
        raise Refusal(400, "At most 50 external_ids and user_aliases are allowed per request")
    if not external_ids and not aliases and device_id is None and email is None:
        raise Refusal(400, "One of external_ids, user_aliases, device_id and email_address is required")
    fields = fields_to_export(body) if "fields_to_export" in body else list(FIELDS)
    people = world.people

    def apply() -> Reply:
        reading = world.reading()
        found: list[User | None] = [
            *map(people.by_external_id.get, external_ids),
            *map(people.by_alias.get, aliases),
            *([] if device_id is None else [people.by_device.get(device_id)]),
            *([] if email is None else reading.holders("email", email)),
        ]
        users = dict.fromkeys(user for user in found if user is not None)
        answer = {
            "message": "success",
            "users": [profile(reading, user, fields) for user in users],
            "invalid_user_ids": [name for name in external_ids if name not in people.by_external_id],
        }
        return Reply(201, answer)

    counts = {
        "external_id": len(external_ids),
        "alias": len(aliases),
        "device_id": int(device_id is not None),
        "email": int(email is not None),
    }
    return Work(apply, ids={"get": {kind: count for kind, count in counts.items() if count}})


def _external_ids(body: dict[str, Any]) -> list[str]:
    value = body.get("external_ids", [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(400, "external_ids must be an array of strings")
    return value


def _aliases(body: dict[str, Any]) -> list[Alias]:
    value = body.get("user_aliases", [])
    if not isinstance(value, list):
        raise Refusal(400, "user_aliases must be an array of objects")
    return [_alias(item) for item in value]


def _alias(item: object) -> Alias:
    if not isinstance(item, dict):
        raise Refusal(400, "user_aliases must be an array of objects")
    name, label = item.get("alias_name"), item.get("alias_label")
    if not isinstance(name, str) or not isinstance(label, str):
        raise Refusal(400, "user_aliases must have alias_name and alias_label")
    return name, label


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(400, f"{name} must be a string")
    return value


ENDPOINTS = (
    Endpoint(
        "users-export-ids",
        "POST",
        "/users/export/ids",
        group="ids",
        authorise=authorise,
        prepare=prepare_ids_export,
        largest_body=LARGEST_BODY,
        permission="users.export.ids",
    ),
)

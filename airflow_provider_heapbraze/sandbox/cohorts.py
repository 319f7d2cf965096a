"""Braze's partner cohorts (Braze: Partner cohort import): both endpoints, and what they change."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.sandbox.exchange import Endpoint, Refusal, Reply, Work

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_heapbraze.sandbox.exchange import Call
    from airflow_provider_heapbraze.sandbox.people import Alias, People, User
    from airflow_provider_heapbraze.sandbox.world import World

MOST_IDS = 1_000
MOST_EXTERNAL_ID_BYTES = 987
LARGEST_BODY = 4_000_000
# Partners are required to name themselves: partner-<Organization>-<Product>/<version>, in Pascal case.
PARTNER_USER_AGENT = re.compile(r"partner-[A-Z][A-Za-z0-9]*-[A-Z][A-Za-z0-9]*/[0-9A-Za-z.+_-]+")

CHANGES_SHAPE = (
    "cohort_changes must be an array of objects, each with user_ids and/or device_ids arrays of strings, "
    "or aliases"
)


@dataclass
class Cohort:
    """A cohort: the users in it, and the identifiers that were added and not removed since.

    A cohort that got members before it got a name has None for it: what Braze does then is not documented.
    """

    name: str | None = None
    created_at: str | None = None
    members: set[User] = field(default_factory=set)
    external_ids: set[str] = field(default_factory=set)
    aliases: set[Alias] = field(default_factory=set)
    device_ids: set[str] = field(default_factory=set)

    def sizes(self) -> dict[str, int]:
        """Return how many identifiers of each kind were added and not removed since."""
        return {
            "external_id": len(self.external_ids),
            "alias": len(self.aliases),
            "device_id": len(self.device_ids),
        }


@dataclass(frozen=True)
class Change:
    """One object of ``cohort_changes``."""

    external_ids: list[str]
    aliases: list[Alias]
    device_ids: list[str]
    removes: bool

    @property
    def direction(self) -> str:
        """``add`` or ``remove``."""
        return "remove" if self.removes else "add"

    def sizes(self) -> dict[str, int]:
        """Return the number of identifiers of each kind that it has."""
        sizes = {
            "external_id": len(self.external_ids),
            "alias": len(self.aliases),
            "device_id": len(self.device_ids),
        }
        return {kind: size for kind, size in sizes.items() if size}

    def people(self, people: People) -> set[User | tuple[str, object]]:
        """Return whom it means: users, and identifiers that no user has."""
        return {
            *(people.by_external_id.get(i, ("external_id", i)) for i in self.external_ids),
            *(people.by_alias.get(i, ("alias", i)) for i in self.aliases),
            *(people.anonymous_on(i) or ("device_id", i) for i in self.device_ids),
        }

    def users(self, people: People) -> set[User]:
        """Return the users that it moves; unknown ones and devices of identified ones move nobody."""
        found = (
            *map(people.by_external_id.get, self.external_ids),
            *map(people.by_alias.get, self.aliases),
            *map(people.anonymous_on, self.device_ids),
        )
        return {user for user in found if user is not None}

    def ignored(self, people: People) -> Counter[str]:
        """Count the identifiers that move nobody, by reason."""
        unknown = (
            sum(i not in people.by_external_id for i in self.external_ids)
            + sum(i not in people.by_alias for i in self.aliases)
            + sum(i not in people.by_device for i in self.device_ids)
        )
        identified = sum(i in people.by_device and people.anonymous_on(i) is None for i in self.device_ids)
        return +Counter({"unknown": unknown, "device_of_identified": identified})

    def apply(self, cohort: Cohort, users: set[User]) -> None:
        """Add or remove the users it moves; removing somebody who is not in the cohort changes nothing."""
        if self.removes:
            cohort.members -= users
            cohort.external_ids.difference_update(self.external_ids)
            cohort.aliases.difference_update(self.aliases)
            cohort.device_ids.difference_update(self.device_ids)
        else:
            cohort.members |= users
            cohort.external_ids.update(self.external_ids)
            cohort.aliases.update(self.aliases)
            cohort.device_ids.update(self.device_ids)


def authorise(world: World, _: Endpoint, call: Call) -> None:
    """Refuse a partner that does not name itself, and wrong keys; each in the words that Braze has for it."""
    if not PARTNER_USER_AGENT.fullmatch(call.headers.get("user-agent", "")):
        raise Refusal(400, "User-Agent must be partner-<Organization>-<Product>/<version>")
    body = call.json_object()
    partner_key, secret = body.get("partner_api_key"), body.get("client_secret")
    if partner_key is None or secret is None:
        raise Refusal(401, "Unauthorized access")
    if partner_key != world.settings.partner_api_key:
        raise Refusal(401, "Invalid Partner API key")
    if secret != world.settings.data_import_key:
        raise Refusal(401, "Invalid client secret")
    if call.path_params["partner"] != world.settings.partner_name:
        raise Refusal(401, f"Partner not enabled for client with client secret: {secret}")


def prepare_name(world: World, call: Call) -> Work:
    """Create or rename a cohort."""
    cohort_id = _cohort_id(call.body)
    name, created_at = call.body.get("name"), call.body.get("created_at")
    if not isinstance(name, str) or not name:
        raise Refusal(400, "name must be a non-empty string")
    if not _is_time(created_at):
        raise Refusal(400, "created_at must be a valid ISO 8601 time")

    def apply() -> Reply:
        cohort = world.cohort(cohort_id)
        cohort.name, cohort.created_at = name, created_at
        return Reply(201, {"message": "success"})

    return Work(apply, cohort_id=cohort_id)


def prepare_users(world: World, call: Call) -> Work:
    """Add and remove members. An empty list of changes checks the keys and changes nothing."""
    cohort_id = _cohort_id(call.body)
    changes = _changes(call.body.get("cohort_changes"))
    world.conflicts += _conflicts(changes, world.people)

    def apply() -> Reply:
        if any(not world.faults.poison.isdisjoint(change.external_ids) for change in changes):
            raise Refusal(400, "A user in cohort_changes is not valid")
        for change in changes:
            cohort, users = world.cohort(cohort_id), change.users(world.people)
            world.journal.note(("cohort", cohort_id), ((user, user in cohort.members) for user in users))
            change.apply(cohort, users)
            world.ignored.update(change.ignored(world.people))
        return Reply(201, {"message": "success"})

    return Work(apply, ids=_count(changes), cohort_id=cohort_id)


def _cohort_id(body: dict[str, Any]) -> str:
    cohort_id = body.get("cohort_id")
    if not isinstance(cohort_id, str) or not cohort_id:
        raise Refusal(400, "cohort_id must be a valid string")
    return cohort_id


def _is_time(value: object) -> bool:
    try:
        # Python would take a blank in the place of the T.
        return isinstance(value, str) and " " not in value and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _changes(value: object) -> list[Change]:
    if not isinstance(value, list):
        raise Refusal(400, CHANGES_SHAPE)
    changes = [_change(item) for item in value]
    if sum(sum(change.sizes().values()) for change in changes) > MOST_IDS:
        raise Refusal(400, "Only 1,000 user_ids, device_ids and aliases are allowed per request")
    if any(_too_long(external_id) for change in changes for external_id in change.external_ids):
        raise Refusal(400, "user_ids must be fewer than 988 bytes each")
    return changes


def _change(item: object) -> Change:
    if not isinstance(item, dict) or not item.keys() & {"user_ids", "device_ids", "aliases"}:
        raise Refusal(400, CHANGES_SHAPE)
    removes = item.get("should_remove", False)
    if not isinstance(removes, bool):
        raise Refusal(400, "should_remove must be a boolean")
    aliases = item.get("aliases", [])
    if not isinstance(aliases, list):
        raise Refusal(400, CHANGES_SHAPE)
    return Change(
        external_ids=_strings(item.get("user_ids", [])),
        aliases=[_alias(alias) for alias in aliases],
        device_ids=_strings(item.get("device_ids", [])),
        removes=removes,
    )


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(400, CHANGES_SHAPE)
    return value


def _alias(value: object) -> Alias:
    if not isinstance(value, dict):
        raise Refusal(400, CHANGES_SHAPE)
    name, label = value.get("alias_name"), value.get("alias_label")
    if not isinstance(name, str) or not isinstance(label, str):
        raise Refusal(400, CHANGES_SHAPE)
    return name, label


def _too_long(external_id: str) -> bool:
    # No character has more than four bytes: most ids need no encoding.
    return len(external_id) * 4 > MOST_EXTERNAL_ID_BYTES and (
        len(external_id.encode("utf-8", "surrogatepass")) > MOST_EXTERNAL_ID_BYTES
    )


def _conflicts(changes: Iterable[Change], people: People) -> int:
    adds: set[object] = set()
    removes: set[object] = set()
    for change in changes:
        (removes if change.removes else adds).update(change.people(people))
    return len(adds & removes)


def _count(changes: Iterable[Change]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for change in changes:
        counts.setdefault(change.direction, Counter()).update(change.sizes())
    return {direction: dict(kinds) for direction, kinds in counts.items()}


ENDPOINTS = (
    Endpoint(
        "cohort",
        "POST",
        "/partners/{partner}/cohorts",
        group="cohorts",
        authorise=authorise,
        prepare=prepare_name,
        largest_body=LARGEST_BODY,
    ),
    Endpoint(
        "cohort-users",
        "POST",
        "/partners/{partner}/cohorts/users",
        group="cohorts",
        authorise=authorise,
        prepare=prepare_users,
        largest_body=LARGEST_BODY,
    ),
)

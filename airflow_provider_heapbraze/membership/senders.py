"""The ways that membership reaches the other side: a cohort or an attribute in Braze, a property in Heap."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_heapbraze.clients.braze import CohortChange
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.clients.heap import USERS_PER_REQUEST
from airflow_provider_heapbraze.membership.batches import Refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_heapbraze.clients.braze import BrazeClient
    from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
    from airflow_provider_heapbraze.clients.heap import HeapClient
    from airflow_provider_heapbraze.membership.batches import Batch

COHORT_KINDS = ("external_id", "alias", "device_id")
# Braze: User track: an object is found by external id or alias; it takes no device id.
ATTRIBUTE_KINDS = ("external_id", "alias")
PROPERTY_KINDS = ("identity",)
# Heap: Add user properties: keys and values have fewer than 1,024 characters.
TEXT_LIMIT = 1024
BUILT_IN = frozenset({"id", "user_id", "identity", "handle", "email"})
ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_]{1,255}")
# Fields that every profile has: to write one would change people, not tell who is in a segment.
# fmt: off
RESERVED = frozenset(
    {
        "external_id", "user_alias", "braze_id", "email", "phone", "country", "current_location",
        "date_of_first_session", "date_of_last_session", "dob", "email_subscribe",
        "email_open_tracking_disabled", "email_click_tracking_disabled", "external_id_type", "facebook",
        "first_name", "gender", "home_city", "image_url", "language", "last_name",
        "marked_email_as_spam_at", "push_subscribe", "push_tokens", "subscription_groups", "time_zone",
        "twitter", "bio", "alias_name", "alias_label", "app_id", "_update_existing_only",
        "push_token_import",
    }
)
# fmt: on


class CohortSender:
    """Membership as a partner cohort (Braze: Partner cohort import).

    :param client: with a partner key and a data import key.
    :param cohort_id: the cohort's id, ours to choose and never to change.
    """

    destination = "Braze"
    rows_per_request = 1000  # external ids, device ids and aliases together

    def __init__(self, client: BrazeClient, cohort_id: str) -> None:
        self._client = client
        self._cohort_id = cohort_id

    def next_step(self, name: str | None) -> str:
        """Say how people reach the cohort: Braze has no API for it."""
        partner = self._client.keys.partner_name
        partner = partner[:1].upper() + partner[1:]
        return (
            f'Make the segment in Braze, once: Segments > Create Segment, filter "{partner} Cohorts" '
            f'includes "{name}". A campaign can use it from then on, and its id, given to '
            "BrazeCohortVerifyOperator as segment_id, proves each import to the last person."
        )

    def name(self, name: str, *, check: Callable[[], None]) -> None:
        """Create the cohort, or rename it."""
        self._client.name_cohort(self._cohort_id, name, datetime.now(UTC), check=check)

    def send(self, batch: Batch, *, lane: AdaptiveConcurrency, check: Callable[[], None]) -> Refusals:
        """Send one batch: of people who enter, or of people who leave."""
        self._client.change_cohort(self._cohort_id, [_cohort_change(batch)], lane=lane, check=check)
        return Refusals()

    def expect(self, rows: int) -> None:
        """Hear how many rows are left."""
        self._client.cohort_budget.expect(-(-rows // self.rows_per_request))

    def interrupt(self) -> None:
        """End every wait of every request at once."""
        self._client.interrupt()


class AttributeSender:
    """Membership as a boolean custom attribute (Braze: User track); leaving writes false.

    :param client: with a REST API key that has ``users.track``.
    :param attribute: the attribute's name.
    :raises ConfigurationError: Braze takes no custom attribute of this name.
    """

    destination = "Braze"

    def __init__(self, client: BrazeClient, attribute: str) -> None:
        check_attribute(attribute)
        self._client = client
        self._attribute = attribute
        self.rows_per_request = client.limits.attributes_per_request

    def next_step(self, name: str | None) -> str:  # noqa: ARG002 - a cohort's name
        """Say how people reach those who have the attribute."""
        return (
            'Make the segment in Braze, once: Segments > Create Segment, filter "Custom Attributes", '
            f"{self._attribute} is true. Its id, given to BrazeCohortVerifyOperator as segment_id, proves "
            "each import to the last person."
        )

    def name(self, name: str, *, check: Callable[[], None]) -> None:
        """Do nothing: an attribute has no name beside its own."""

    def send(self, batch: Batch, *, lane: AdaptiveConcurrency, check: Callable[[], None]) -> Refusals:
        """Send one batch; the answer tells of single rows that were refused."""
        result = self._client.set_attributes(
            [self._object(row) for row in batch.rows], lane=lane, check=check
        )
        return Refusals(rejected=result.rejected, unsure=result.unsure)

    def expect(self, rows: int) -> None:
        """Hear how many rows are left."""
        self._client.track_budget.expect(-(-rows // self.rows_per_request))

    def interrupt(self) -> None:
        """End every wait of every request at once."""
        self._client.interrupt()

    def _object(self, row: tuple[str, str, str, bool]) -> dict[str, Any]:
        kind, value, label, leaving = row
        person: dict[str, Any] = (
            {"external_id": value}
            if kind == "external_id"
            else {"user_alias": {"alias_name": value, "alias_label": label}}
        )
        return {**person, self._attribute: not leaving}


class HeapPropertySender:
    """Membership as a user property in Heap (Heap: Add user properties); leaving writes "false".

    No unset is documented, and booleans are texts.

    :param client: of the Heap environment.
    :param property_name: the property's name.
    :raises ConfigurationError: Heap takes no property of this name.
    """

    destination = "Heap"
    rows_per_request = USERS_PER_REQUEST

    def __init__(self, client: HeapClient, property_name: str) -> None:
        check_property(property_name)
        self._client = client
        self._property = property_name

    def next_step(self, name: str | None) -> str:  # noqa: ARG002 - a cohort's name
        """Say how people reach those who have the property."""
        return (
            f'Make the segment in Heap, once: Define > Segments, users whose property "{self._property}" is '
            '"true".'
        )

    def name(self, name: str, *, check: Callable[[], None]) -> None:
        """Do nothing: a property has no name beside its own."""

    def send(self, batch: Batch, *, lane: AdaptiveConcurrency, check: Callable[[], None]) -> Refusals:
        """Send one batch; Heap tells of no single row."""
        users = [(identity, {self._property: _text(not leaving)}) for _, identity, _, leaving in batch.rows]
        self._client.set_user_properties(users, lane=lane, check=check)
        return Refusals()

    def expect(self, rows: int) -> None:
        """Hear how many rows are left."""
        self._client.property_budget.expect(-(-rows // self.rows_per_request))

    def interrupt(self) -> None:
        """End every wait of every request at once."""
        self._client.interrupt()


def check_property(name: str) -> None:
    """Make sure that a name can be one of a user property (Heap: Add user properties).

    :raises ConfigurationError: it cannot.
    """
    if not name.strip() or len(name) >= TEXT_LIMIT or name.strip().lower() in BUILT_IN:
        raise ConfigurationError(
            f"{name[:60]!r} cannot be the name of a user property in Heap: it must not be empty, not be one "
            f"that Heap has for everybody (id, identity, email), and have fewer than {TEXT_LIMIT:,} "
            "characters. Nothing was sent."
        )


def _text(flag: bool) -> str:  # noqa: FBT001 - it is the value itself
    return "true" if flag else "false"


def check_attribute(name: str) -> None:
    """Make sure that a name can be one of a custom attribute (Braze: User attributes object).

    :raises ConfigurationError: it cannot.
    """
    if not ATTRIBUTE_NAME.fullmatch(name) or name.lower() in RESERVED:
        raise ConfigurationError(
            f"{name[:60]!r} cannot be the name of a custom attribute: letters, digits and underscores, at "
            "most 255, and not the name of a field that Braze has for everybody. Nothing was sent."
        )


def _cohort_change(batch: Batch) -> CohortChange:
    change = CohortChange(user_ids=[], device_ids=[], aliases=[], should_remove=batch.removes)
    for kind, value, label, _ in batch.rows:
        if kind == "external_id":
            change.user_ids.append(value)
        elif kind == "device_id":
            change.device_ids.append(value)
        else:
            change.aliases.append((value, label))
    return change

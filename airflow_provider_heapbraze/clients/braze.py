"""Braze's REST API, as far as membership needs it; what is only read is in ``braze_reads``.

Keys travel in two ways, never mixed: partner endpoints take both of theirs in the body and no Authorization
header; REST endpoints take a Bearer token and no key in the body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from airflow_provider_heapbraze import __version__
from airflow_provider_heapbraze.clients import braze_answers
from airflow_provider_heapbraze.clients.answers import Endpoint, accepted
from airflow_provider_heapbraze.clients.braze_account import (
    DEFAULT_LIMITS,
    BrazeKeys,
    BrazeLimits,
    instance_host,
)
from airflow_provider_heapbraze.clients.braze_answers import TrackResult
from airflow_provider_heapbraze.clients.braze_reads import BrazeReads
from airflow_provider_heapbraze.clients.budget import Budget, Limit
from airflow_provider_heapbraze.clients.budget_stores import hashed
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.errors import ConfigurationError, PermissionDeniedError
from airflow_provider_heapbraze.clients.shared_budget import SharedBudget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_heapbraze.clients.budget import Pacer
    from airflow_provider_heapbraze.clients.budget_stores import BudgetStore
    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
    from airflow_provider_heapbraze.clients.transport import Transport

__all__ = [
    "BrazeClient",
    "BrazeKeys",
    "BrazeLimits",
    "CohortChange",
    "Limit",
    "TrackResult",
    "instance_host",
]


@dataclass(frozen=True)
class CohortChange:
    """People who enter or leave a cohort together; the repr shows nobody.

    :param user_ids: external ids.
    :param device_ids: of anonymous users; Braze ignores those of identified ones.
    :param aliases: (name, label).
    :param should_remove: they leave.
    """

    user_ids: list[str] = field(repr=False)
    device_ids: list[str] = field(repr=False)
    aliases: list[tuple[str, str]] = field(repr=False)
    should_remove: bool

    def __bool__(self) -> bool:
        return bool(self.user_ids or self.device_ids or self.aliases)

    def as_json(self) -> dict[str, Any]:
        """Return the object that Braze takes: three lists, empty ones included, and the flag only if set."""
        people = {
            "user_ids": self.user_ids,
            "device_ids": self.device_ids,
            "aliases": [{"alias_name": name, "alias_label": label} for name, label in self.aliases],
        }
        return {**people, "should_remove": True} if self.should_remove else people


class BrazeClient:
    """One Braze workspace.

    ``reads`` is what can be read of it.

    :param transport: to the instance's REST endpoint.
    :param store: holds the budgets that all share who use this workspace; closed with the client. None keeps
        them to this client.
    :param partner_user_agent: sent to partner endpoints. Braze requires partners to send
        ``partner-<Organization>-<Product>/<version>``; the default is made of the partner's name.
    """

    def __init__(
        self,
        transport: Transport,
        keys: BrazeKeys,
        limits: BrazeLimits = DEFAULT_LIMITS,
        *,
        store: BudgetStore | None = None,
        partner_user_agent: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.keys = keys
        self.limits = limits
        self._transport = transport
        self._store = store
        self._clock = clock
        self.cohort_budget = self._budget(limits.cohort, "cohorts", keys.partner_name)
        self.track_budget = self._budget(limits.track, "track")
        pool, ids = self._budget(limits.pool, "pool"), self._budget(limits.ids, "ids")
        self._budgets = (self.cohort_budget, self.track_budget, pool, ids)
        self._partner_headers = {"User-Agent": partner_user_agent or _partner_user_agent(keys.partner_name)}
        self._rest_headers = {"Authorization": f"Bearer {keys.rest_api_key}"}
        self._cohorts_path = f"/partners/{quote(keys.partner_name, safe='')}/cohorts"
        self._name = Endpoint("Braze cohort name", self.cohort_budget, braze_answers.COHORT_RULES)
        self._members = Endpoint("Braze cohort members", self.cohort_budget, braze_answers.COHORT_RULES)
        self._track = Endpoint(
            "Braze user track", self.track_budget, braze_answers.TRACK_RULES, "users.track"
        )
        self._segments = Endpoint("Braze segment list", pool, braze_answers.REST_RULES, "segments.list")
        self.reads = BrazeReads(transport, self._bearer, pool=pool, ids=ids, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """Return the REST endpoint, in the one form that names it."""
        return self._transport.base_url

    def statistics(self) -> dict[str, Any]:
        """Return how many requests were sent, with which answers, and how long they waited."""
        return self._transport.statistics.as_dict()

    def interrupt(self) -> None:
        """End every wait within half a second, and send nothing more. Safe in a signal handler."""
        self._transport.interrupt()

    def close(self) -> None:
        """Close the connections, and leave to others what is left of the budgets."""
        for budget in self._budgets:
            budget.close()
        if self._store is not None:
            self._store.close()
        self._transport.close()

    def name_cohort(
        self, cohort_id: str, name: str, created_at: datetime, *, check: Callable[[], None] | None = None
    ) -> None:
        """Create a cohort, or rename it (Braze: Partner cohort import).

        :param created_at: aware; sent as ISO 8601, UTC.
        :param check: called right before each try; where it raises, nothing is sent.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        at = created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {**self._partner_keys(), "cohort_id": cohort_id, "name": name, "created_at": at}
        self._transport.send(
            self._name, "POST", self._cohorts_path, json=body, headers=self._partner_headers, check=check
        )

    def change_cohort(
        self,
        cohort_id: str,
        changes: Sequence[CohortChange],
        *,
        lane: AdaptiveConcurrency | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Send who enters and who leaves, at most 1,000 identifiers together (Braze: Partner cohort import).

        Those who enter come first; an empty side is left out, and with two of them nothing is sent. Braze
        ignores unknown people without an error. Nobody may be on both sides: the outcome would be a race.

        :param lane: limits how many requests of one delivery are under way.
        :param check: called right before each try; where it raises, nothing is sent.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        ordered = sorted(filter(None, changes), key=lambda change: change.should_remove)
        if ordered:
            body = self._members_body(cohort_id, [change.as_json() for change in ordered])
            self._transport.send(
                self._members,
                "POST",
                f"{self._cohorts_path}/users",
                json=body,
                headers=self._partner_headers,
                lane=lane,
                check=check,
            )

    def set_attributes(
        self,
        attributes: Sequence[Mapping[str, Any]],
        *,
        lane: AdaptiveConcurrency | None = None,
        check: Callable[[], None] | None = None,
    ) -> TrackResult:
        """Set attributes of people who exist; nobody is created (Braze: User track).

        :param attributes: one object per person, with an identifier and the attributes; at most
            ``limits.attributes_per_request``.
        :param lane: limits how many requests of one delivery are under way.
        :param check: called right before each try; where it raises, nothing is sent.
        :returns: what the answer says against single objects.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        answer = self._transport.send(
            self._track,
            "POST",
            "/users/track",
            json={"attributes": [{**one, "_update_existing_only": True} for one in attributes]},
            headers=self._bearer(),
            lane=lane,
            check=check,
        )
        return braze_answers.track_result(answer.body, len(attributes))

    def check_partner_keys(self) -> None:
        """Ask Braze whether it takes the partner's keys, and change nothing: nobody enters, nobody leaves.

        :raises AuthenticationError: a key or the instance is wrong.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        # A 400 is about the list, which is empty: the keys were taken.
        endpoint = replace(self._members, rules={**braze_answers.COHORT_RULES, 400: accepted})
        self._transport.send(
            endpoint,
            "POST",
            f"{self._cohorts_path}/users",
            json=self._members_body("connection-test", []),
            headers=self._partner_headers,
        )

    def check_rest_key(self) -> bool:
        """Ask Braze whether it takes the REST API key, and change nothing.

        :returns: False where the key is right but lacks ``segments.list``, which delivery does not need.
        :raises AuthenticationError: the key or the instance is wrong.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        try:
            self._transport.send(
                self._segments, "GET", "/segments/list", params={"page": "0"}, headers=self._bearer()
            )
        except PermissionDeniedError:
            return False
        return True

    def _budget(self, limit: Limit, *names: str) -> Pacer:
        """Return the budget of an endpoint; by its names whoever shares it finds it."""
        if self._store is None:
            return Budget(*limit, clock=self._clock)
        return SharedBudget(self._store, hashed(self.base_url, *names), *limit, clock=self._clock)

    def _members_body(self, cohort_id: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._partner_keys(), "cohort_id": cohort_id, "cohort_changes": changes}

    def _partner_keys(self) -> dict[str, str]:
        if not self.keys.partner_api_key or not self.keys.data_import_key:
            raise ConfigurationError(
                "Cohort delivery needs partner_api_key and data_import_key in the Braze connection. Nothing "
                "was sent. Without a partner key use attribute delivery."
            )
        return {"partner_api_key": self.keys.partner_api_key, "client_secret": self.keys.data_import_key}

    def _bearer(self) -> dict[str, str]:
        if not self.keys.rest_api_key:
            raise ConfigurationError(
                "This call needs a REST API key: the password of the Braze connection. Nothing was sent."
            )
        return self._rest_headers


def _partner_user_agent(partner_name: str) -> str:
    organisation = "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", partner_name))
    return f"partner-{organisation}-AirflowProvider/{__version__}"

"""Heap's HTTP API: events and user properties written in bulk, and what a connection test needs.

Nothing can be read there.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_heapbraze.clients.answers import BASIC_RULES, Endpoint, accepted, refuses, says
from airflow_provider_heapbraze.clients.budget import Budget, Limit
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    ConfigurationError,
    HeapBrazeError,
    UnclearAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_heapbraze.clients.answers import Answer, Rules
    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
    from airflow_provider_heapbraze.clients.transport import Transport

REGION_HOSTS = {"us": "https://heapanalytics.com", "eu": "https://c.eu.heap-api.com"}
EVENTS_PER_REQUEST = 1_000
TRACK_REQUESTS = 250
USERS_PER_REQUEST = 1_000
# The one rate that Heap documents for this endpoint is that of single requests, per identity; one for bulk
# requests is not documented (Heap: Add user properties).
PROPERTY_LIMIT = Limit(30, 30.0)
# Tokens are issued here for every region (Heap: User deletion).
TOKEN_HOST = REGION_HOSTS["us"]


def region_host(region: str) -> str:
    """Return the host of a region.

    :param region: ``us`` or ``eu``.
    :raises ConfigurationError: it is neither.
    """
    host = REGION_HOSTS.get(region.strip().lower())
    if host is None:
        raise ConfigurationError(f"Heap has the regions us and eu, not {region!r}.")
    return host


def _got_token(endpoint: Endpoint, answer: Answer) -> HeapBrazeError | None:
    if isinstance(answer.body, dict) and answer.body.get("access_token"):
        return None
    return UnclearAnswerError(f"{endpoint.name} answered {answer.status} without a token.")


_REFUSED = says(
    AuthenticationError,
    "{endpoint} answered {status}: the API key was refused. Look at the connection's login (the app id of "
    "the main production environment) and password (the API key).",
)
_TOKEN_RULES: Rules = {**BASIC_RULES, 2: _got_token, 401: _REFUSED, 403: _REFUSED}
_TRACK_RULES: Rules = {
    **BASIC_RULES,
    400: refuses("{endpoint} answered 400: it refuses an event, or does not know the app id."),
}
_PROPERTIES_RULES: Rules = {
    **BASIC_RULES,
    400: refuses("{endpoint} answered 400: it refuses a user, or does not know the app id."),
}
# Whatever is not a failure of the server proves that it is there.
_REACHABLE_RULES: Rules = {2: accepted, 3: accepted, 4: accepted, 5: BASIC_RULES[5]}


class HeapClient:
    """One Heap environment.

    :param transport: to :func:`region_host`, or to ``TOKEN_HOST`` for :meth:`check_api_key`.
    :param app_id: the environment's id.
    :param api_key: only for :meth:`check_api_key`.
    :param property_limit: requests that :meth:`set_user_properties` may send.
    """

    def __init__(
        self,
        transport: Transport,
        app_id: str,
        api_key: str | None = None,
        *,
        property_limit: Limit = PROPERTY_LIMIT,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._transport = transport
        self._app_id = app_id
        self._api_key = api_key
        budget = Budget(30, 30.0, clock=clock)
        # Events are what Heap counts, and the caller paces them; this one holds requests back after a 429.
        self._track = Endpoint("Heap track", Budget(TRACK_REQUESTS, 1.0, clock=clock), _TRACK_RULES)
        self.property_budget = Budget(*property_limit, clock=clock)
        self._properties = Endpoint("Heap user properties", self.property_budget, _PROPERTIES_RULES)
        self._token = Endpoint("Heap auth token", budget, _TOKEN_RULES)
        self._host = Endpoint("Heap", budget, _REACHABLE_RULES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def environment(self) -> str:
        """Name the environment that is written to: a hash of host and app id, which is a credential."""
        text = f"{self._transport.base_url} {self._app_id}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def statistics(self) -> dict[str, Any]:
        """Return how many requests were sent, and how they were answered."""
        return self._transport.statistics.as_dict()

    def interrupt(self) -> None:
        """End every wait of every request at once. Safe in a signal handler."""
        self._transport.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def track(self, events: Sequence[bytes], *, check: Callable[[], None]) -> None:
        """Write events (Heap: Track, bulk); one with a key that Heap knows changes nothing.

        :param events: at most 1,000, each as JSON with ``identity``, ``event``, ``timestamp``,
            ``idempotency_key`` and ``properties``.
        :param check: called right before each try; where it raises, nothing is sent.
        :raises RequestRejectedError: Heap refuses all of them because of one, or does not know the app id.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        app_id = json.dumps(self._app_id).encode()
        content = b'{"app_id":' + app_id + b',"events":[' + b",".join(events) + b"]}"
        self._transport.send(self._track, "POST", "/api/track", content=content, check=check)

    def set_user_properties(
        self,
        users: Sequence[tuple[str, Mapping[str, str | int | float]]],
        *,
        lane: AdaptiveConcurrency | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Set properties of users; to repeat it changes nothing (Heap: Add user properties, bulk).

        An identity that Heap does not know becomes a user without events. A property cannot be taken away.

        :param users: at most 1,000 of (identity, properties); names and texts have fewer than 1,024
            characters.
        :param lane: limits how many requests of one delivery are under way.
        :param check: called right before each try; where it raises, nothing is sent.
        :raises RequestRejectedError: Heap refuses all of them because of one, or does not know the app id.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        people = [{"identity": identity, "properties": properties} for identity, properties in users]
        self._transport.send(
            self._properties,
            "POST",
            "/api/add_user_properties",
            json={"app_id": self._app_id, "users": people},
            lane=lane,
            check=check,
        )

    def check_api_key(self) -> None:
        """Ask Heap for a token, which proves the key and changes nothing (Heap: User deletion).

        :raises ConfigurationError: there is no key.
        :raises AuthenticationError: the key or the app id is wrong.
        :raises HeapBrazeError: as :meth:`Transport.send`.
        """
        if not self._api_key:
            raise ConfigurationError("There is no API key to check. Nothing was sent.")
        credentials = b64encode(f"{self._app_id}:{self._api_key}".encode()).decode()
        self._transport.send(
            self._token,
            "POST",
            "/api/public/v0/auth_token",
            headers={"Authorization": f"Basic {credentials}"},
        )

    def check_reachable(self) -> None:
        """Ask whether the host answers; the app id cannot be proven without writing an event.

        :raises TransientError: it does not.
        """
        self._transport.send(self._host, "HEAD", "/")

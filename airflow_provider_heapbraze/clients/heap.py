"""Heap's HTTP API, as far as a connection test needs it: there is no REST read of segments or users."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from airflow_provider_heapbraze.clients.answers import BASIC_RULES, Endpoint, accepted, says
from airflow_provider_heapbraze.clients.budget import Budget
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    ConfigurationError,
    HeapBrazeError,
    UnclearAnswerError,
)

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.answers import Answer, Rules
    from airflow_provider_heapbraze.clients.clock import Clock
    from airflow_provider_heapbraze.clients.transport import Transport

REGION_HOSTS = {"us": "https://heapanalytics.com", "eu": "https://c.eu.heap-api.com"}
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
# Whatever is not a failure of the server proves that it is there.
_REACHABLE_RULES: Rules = {2: accepted, 3: accepted, 4: accepted, 5: BASIC_RULES[5]}


class HeapClient:
    """One Heap environment.

    :param transport: to :func:`region_host`, or to ``TOKEN_HOST`` for :meth:`check_api_key`.
    :param app_id: the environment's id.
    :param api_key: only for :meth:`check_api_key`.
    """

    def __init__(
        self, transport: Transport, app_id: str, api_key: str | None = None, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._transport = transport
        self._app_id = app_id
        self._api_key = api_key
        budget = Budget(30, 30.0, clock=clock)
        self._token = Endpoint("Heap auth token", budget, _TOKEN_RULES)
        self._host = Endpoint("Heap", budget, _REACHABLE_RULES)

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

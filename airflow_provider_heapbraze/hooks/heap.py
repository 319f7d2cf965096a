"""A Heap connection becomes a Heap client."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.clients.event_budget import EventLimits
from airflow_provider_heapbraze.clients.heap import PROPERTY_LIMIT, TOKEN_HOST, HeapClient, region_host
from airflow_provider_heapbraze.hooks._connection import (
    address,
    open_transport,
    secret,
    secrets,
    text,
    whole_number,
)

if TYPE_CHECKING:
    from airflow.sdk.definitions.connection import Connection


class HeapHook(BaseHook):
    """Talk to one Heap environment.

    ========================= ==========================================================================
    field of the connection   holds
    ========================= ==========================================================================
    login                     the app id, which names the environment
    password                  the API key: only for deletion and for the connection test
    extra ``region``          ``us`` (default) or ``eu``
    extra ``webhook_secret``  proves that what a Segments Sync webhook brings comes from Heap; several, apart
                              by commas, while one is changed for another
    extra ``pii_salt``        goes into the hashes of personal data, with ``pii="hash"``
    host                      empty; another address than the region's for tests
    ========================= ==========================================================================

    Contracts differ, so each limit is an extra, too: ``events_per_minute`` and
    ``events_per_identity_per_minute`` (Heap: Track, bulk), and ``property_requests_per_30_seconds`` (Heap:
    Add user properties; 30, which Heap documents for single requests: ask Heap what it takes in bulk).
    ``verify``, ``cert``, ``proxies`` and ``trust_env`` mean what they mean for an HTTP connection of Airflow.

    :param heap_conn_id: the Heap connection.
    """

    conn_name_attr = "heap_conn_id"
    default_conn_name = "heap_default"
    conn_type = "heap"
    hook_name = "Heap"

    def __init__(self, heap_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.heap_conn_id = heap_conn_id

    def get_conn(self) -> HeapClient:
        """Return a client of the region's host.

        :raises ConfigurationError: the connection lacks something, or holds something that cannot be.
        """
        connection, app_id, api_key = self._read()
        requests = whole_number(
            connection.extra_dejson, "property_requests_per_30_seconds", PROPERTY_LIMIT.requests
        )
        return HeapClient(
            open_transport(connection, _host(connection)),
            app_id,
            api_key,
            property_limit=PROPERTY_LIMIT._replace(requests=requests),
        )

    def get_event_limits(self) -> EventLimits:
        """Return how many events a minute Heap may be sent.

        :raises ConfigurationError: an extra is no whole number above 0.
        """
        extra, usual = self.get_connection(self.heap_conn_id).extra_dejson, EventLimits()
        return EventLimits(
            events=whole_number(extra, "events_per_minute", usual.events),
            events_per_identity=whole_number(
                extra, "events_per_identity_per_minute", usual.events_per_identity
            ),
        )

    def get_pii_salt(self) -> str | None:
        """Return the salt for hashes of personal data, or None."""
        return secret(self.get_connection(self.heap_conn_id).extra_dejson.get("pii_salt"))

    def get_webhook_secrets(self) -> tuple[str, ...]:
        """Return what signs Segments Sync webhooks; several while one is changed for another."""
        return secrets(self.get_connection(self.heap_conn_id).extra_dejson.get("webhook_secret"))

    def test_connection(self) -> tuple[bool, str]:
        """Try the API key; without one, look only whether Heap answers. Nothing is changed.

        :returns: whether that went well, and what it means.
        """
        try:
            return True, self._try()
        except HeapBrazeError as error:
            return False, str(error)

    def _try(self) -> str:
        connection, app_id, api_key = self._read()
        host = _host(connection)
        if api_key:
            host = address(connection) or TOKEN_HOST
        with closing(open_transport(connection, host, once=True)) as transport:
            client = HeapClient(transport, app_id, api_key)
            if api_key:
                client.check_api_key()
                return "The app id and the API key are accepted."
            client.check_reachable()
            return (
                "Heap answers. Whether it knows the app id cannot be tried without an API key: every other "
                "call writes."
            )

    def _read(self) -> tuple[Connection, str, str | None]:
        """Return the connection, its app id and its API key."""
        connection = self.get_connection(self.heap_conn_id)
        secrets(connection.extra_dejson.get("webhook_secret"))
        app_id = text(connection.login)
        if not app_id:
            raise ConfigurationError(
                f"The Heap connection {self.heap_conn_id!r} has no login: fill in the app id of your "
                "environment."
            )
        return connection, app_id, secret(connection.password)


def _host(connection: Connection) -> str:
    return address(connection) or region_host(text(connection.extra_dejson.get("region")) or "us")

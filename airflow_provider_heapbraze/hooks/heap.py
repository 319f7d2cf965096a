"""A Heap connection becomes a Heap client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.hooks._connection import secret, secrets

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.event_budget import EventLimits
    from airflow_provider_heapbraze.clients.heap import HeapClient


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
        from airflow_provider_heapbraze.hooks._clients import open_heap

        return open_heap(self.get_connection(self.heap_conn_id))

    def get_event_limits(self) -> EventLimits:
        """Return how many events a minute Heap may be sent.

        :raises ConfigurationError: an extra is no whole number above 0.
        """
        from airflow_provider_heapbraze.hooks._clients import event_limits

        return event_limits(self.get_connection(self.heap_conn_id))

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
        from airflow_provider_heapbraze.hooks._clients import try_heap

        try:
            return True, try_heap(self.get_connection(self.heap_conn_id))
        except HeapBrazeError as error:
            return False, str(error)

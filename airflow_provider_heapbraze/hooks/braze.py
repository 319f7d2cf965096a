"""A Braze connection becomes a Braze client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_provider_heapbraze.clients.errors import HeapBrazeError
from airflow_provider_heapbraze.hooks._connection import secrets

if TYPE_CHECKING:
    from airflow_provider_heapbraze.clients.braze import BrazeClient


class BrazeHook(BaseHook):
    """Talk to one Braze workspace.

    ============================= ======================================================================
    field of the connection       holds
    ============================= ======================================================================
    host                          the REST endpoint, ``https://rest.iad-01.braze.com``
    password                      the REST API key
    extra ``instance``            the instance's name, ``US-01``, where no host is given
    extra ``partner_api_key``     issued by Braze to the partner
    extra ``data_import_key``     the customer's, from Partner Integrations > Technology Partners
    extra ``partner_name``        in the path of the cohort endpoints; default ``heap``
    extra ``currents_token``      the bearer token with which Currents posts to the landing service; several,
                                  apart by commas, while one is changed for another
    extra ``partner_user_agent``  in place of ``partner-<Organization>-AirflowProvider/<version>``
    ============================= ======================================================================

    Contracts differ, so each limit is an extra, too: ``cohort_requests_per_hour``,
    ``track_requests_per_3_seconds``, ``pool_requests_per_hour``, ``ids_requests_per_minute`` (250; 2,500 for
    workspaces from before 2024-08-22) and ``attributes_per_request`` (Braze: API rate limits). ``verify``,
    ``cert``, ``proxies`` and ``trust_env`` mean what they mean for an HTTP connection of Airflow; they hold
    for the files of exports, too, which are on other hosts.

    Whoever uses the same REST endpoint shares its limits: on this machine, or by ``[heapbraze] budget`` of
    Airflow's configuration on all.

    :param braze_conn_id: the Braze connection.
    """

    conn_name_attr = "braze_conn_id"
    default_conn_name = "braze_default"
    conn_type = "braze"
    hook_name = "Braze"

    def __init__(self, braze_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.braze_conn_id = braze_conn_id

    def get_conn(self) -> BrazeClient:
        """Return a client, to be closed after use: it is a context manager.

        :raises ConfigurationError: the connection lacks something, or holds something that cannot be.
        """
        return self._open_client(once=False)

    def get_quick_conn(self) -> BrazeClient:
        """Return a client that tries each request once, for somebody who looks again anyway.

        :raises ConfigurationError: as :meth:`get_conn`.
        """
        return self._open_client(once=True)

    def get_currents_tokens(self) -> tuple[str, ...]:
        """Return the bearer tokens of Currents; several while one is changed for another."""
        return secrets(self.get_connection(self.braze_conn_id).extra_dejson.get("currents_token"))

    def test_connection(self) -> tuple[bool, str]:
        """Try every key that the connection holds, with calls that change nothing.

        :returns: whether all of them were accepted, and what can be done with them.
        """
        from airflow_provider_heapbraze.hooks._clients import try_keys

        try:
            with self._open_client(once=True) as client:
                findings = try_keys(client)
        except HeapBrazeError as error:
            return False, str(error)
        accepted = {finding.accepted for finding in findings}
        return True in accepted and False not in accepted, " ".join(finding.sentence for finding in findings)

    def _open_client(self, *, once: bool) -> BrazeClient:
        from airflow_provider_heapbraze.hooks._clients import open_braze

        return open_braze(self.get_connection(self.braze_conn_id), once=once)

"""A Braze connection becomes a Braze client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import BaseHook

from airflow_provider_heapbraze.clients.braze import (
    BrazeClient,
    BrazeKeys,
    BrazeLimits,
    Limit,
    instance_host,
)
from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.hooks._budget import budget_store
from airflow_provider_heapbraze.hooks._connection import (
    address,
    open_transport,
    secret,
    secrets,
    text,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.definitions.connection import Connection


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
        try:
            with self._open_client(once=True) as client:
                findings = [_about_cohorts(client), _about_attributes(client)]
        except HeapBrazeError as error:
            return False, str(error)
        accepted = {finding.accepted for finding in findings}
        return True in accepted and False not in accepted, " ".join(finding.sentence for finding in findings)

    def _open_client(self, *, once: bool) -> BrazeClient:
        connection = self.get_connection(self.braze_conn_id)
        extra = connection.extra_dejson
        keys = _keys(connection, extra)
        limits = _limits(extra)
        transport = open_transport(connection, self._base_url(connection, extra), once=once)
        agent = text(extra.get("partner_user_agent"))
        # Who tries once does not wait for a place, either: the others see it in the answers that they get.
        store = None if once else budget_store()
        return BrazeClient(transport, keys, limits, store=store, partner_user_agent=agent)

    def _base_url(self, connection: Connection, extra: Mapping[str, Any]) -> str:
        host, instance = address(connection), text(extra.get("instance"))
        if host:
            return host
        if instance:
            return instance_host(instance)
        raise ConfigurationError(
            f"The Braze connection {self.braze_conn_id!r} does not say where Braze is. Fill in the host (the "
            "REST endpoint, like https://rest.iad-01.braze.com) or the extra instance (like US-01)."
        )


def _keys(connection: Connection, extra: Mapping[str, Any]) -> BrazeKeys:
    return BrazeKeys(
        rest_api_key=secret(connection.password),
        partner_name=text(extra.get("partner_name")) or BrazeKeys.partner_name,
        partner_api_key=secret(extra.get("partner_api_key")),
        data_import_key=secret(extra.get("data_import_key")),
    )


def _limits(extra: Mapping[str, Any]) -> BrazeLimits:
    usual = BrazeLimits()

    def requests(limit: Limit, name: str) -> Limit:
        return limit._replace(requests=whole_number(extra, name, limit.requests))

    return BrazeLimits(
        cohort=requests(usual.cohort, "cohort_requests_per_hour"),
        track=requests(usual.track, "track_requests_per_3_seconds"),
        pool=requests(usual.pool, "pool_requests_per_hour"),
        ids=requests(usual.ids, "ids_requests_per_minute"),
        attributes_per_request=whole_number(extra, "attributes_per_request", usual.attributes_per_request),
    )


class Finding(NamedTuple):
    """What the connection test found out about one way to deliver.

    :param accepted: None where nothing is filled in for it.
    :param sentence: what to tell.
    """

    accepted: bool | None
    sentence: str


def _about_cohorts(client: BrazeClient) -> Finding:
    needed = {
        "partner_api_key": client.keys.partner_api_key,
        "data_import_key": client.keys.data_import_key,
    }
    missing = [name for name, key in needed.items() if not key]
    if missing:
        half = len(missing) < len(needed)
        return Finding(False if half else None, f"Cohort delivery needs {' and '.join(missing)}.")
    try:
        client.check_partner_keys()
    except HeapBrazeError as error:
        return Finding(accepted=False, sentence=str(error))
    return Finding(
        accepted=True,
        sentence="partner_api_key and data_import_key are accepted: cohort delivery is possible.",
    )


def _about_attributes(client: BrazeClient) -> Finding:
    if not client.keys.rest_api_key:
        return Finding(None, "Attribute delivery needs a REST API key as the password.")
    try:
        may_list_segments = client.check_rest_key()
    except HeapBrazeError as error:
        return Finding(accepted=False, sentence=str(error))
    lacking = "" if may_list_segments else " It lacks segments.list, which delivery does not need."
    return Finding(
        accepted=True,
        sentence="The REST API key is accepted: attribute delivery is possible if it has users.track, which "
        f"cannot be tried without a change.{lacking}",
    )

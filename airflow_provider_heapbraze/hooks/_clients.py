"""Connections become clients: the half of the hooks that a DAG file does without."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_heapbraze.clients.braze import (
    BrazeClient,
    BrazeKeys,
    BrazeLimits,
    Limit,
    instance_host,
)
from airflow_provider_heapbraze.clients.errors import ConfigurationError, HeapBrazeError
from airflow_provider_heapbraze.clients.event_budget import EventLimits
from airflow_provider_heapbraze.clients.heap import PROPERTY_LIMIT, TOKEN_HOST, HeapClient, region_host
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


class Finding(NamedTuple):
    """What the connection test found out about one way to deliver.

    :param accepted: None where nothing is filled in for it.
    :param sentence: what to tell.
    """

    accepted: bool | None
    sentence: str


def open_braze(connection: Connection, *, once: bool) -> BrazeClient:
    """Return a client of Braze.

    :param once: each request is tried once, for somebody who looks again anyway.
    :raises ConfigurationError: the connection lacks something, or holds something that cannot be.
    """
    extra = connection.extra_dejson
    keys = _keys(connection, extra)
    limits = _limits(extra)
    transport = open_transport(connection, _braze_url(connection, extra), once=once)
    agent = text(extra.get("partner_user_agent"))
    # Who tries once does not wait for a place, either: the others see it in the answers that they get.
    store = None if once else budget_store()
    return BrazeClient(transport, keys, limits, store=store, partner_user_agent=agent)


def try_keys(client: BrazeClient) -> list[Finding]:
    """Try every key that a Braze connection holds, with calls that change nothing."""
    return [_about_cohorts(client), _about_attributes(client)]


def open_heap(connection: Connection) -> HeapClient:
    """Return a client of the region's host.

    :raises ConfigurationError: the connection lacks something, or holds something that cannot be.
    """
    app_id, api_key = _heap_keys(connection)
    requests = whole_number(
        connection.extra_dejson, "property_requests_per_30_seconds", PROPERTY_LIMIT.requests
    )
    return HeapClient(
        open_transport(connection, _heap_host(connection)),
        app_id,
        api_key,
        property_limit=PROPERTY_LIMIT._replace(requests=requests),
    )


def event_limits(connection: Connection) -> EventLimits:
    """Return how many events a minute Heap may be sent.

    :raises ConfigurationError: an extra is no whole number above 0.
    """
    extra, usual = connection.extra_dejson, EventLimits()
    return EventLimits(
        events=whole_number(extra, "events_per_minute", usual.events),
        events_per_identity=whole_number(extra, "events_per_identity_per_minute", usual.events_per_identity),
    )


def try_heap(connection: Connection) -> str:
    """Try the API key; without one, look only whether Heap answers. Nothing is changed.

    :returns: what went well.
    """
    app_id, api_key = _heap_keys(connection)
    host = _heap_host(connection)
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


def _braze_url(connection: Connection, extra: Mapping[str, Any]) -> str:
    host, instance = address(connection), text(extra.get("instance"))
    if host:
        return host
    if instance:
        return instance_host(instance)
    raise ConfigurationError(
        f"The Braze connection {connection.conn_id!r} does not say where Braze is. Fill in the host (the "
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


def _heap_keys(connection: Connection) -> tuple[str, str | None]:
    """Return the app id and the API key of a Heap connection."""
    secrets(connection.extra_dejson.get("webhook_secret"))
    app_id = text(connection.login)
    if not app_id:
        raise ConfigurationError(
            f"The Heap connection {connection.conn_id!r} has no login: fill in the app id of your "
            "environment."
        )
    return app_id, secret(connection.password)


def _heap_host(connection: Connection) -> str:
    return address(connection) or region_host(text(connection.extra_dejson.get("region")) or "us")

"""What the two connections have in common: fields, secrets, an address, and the way there."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import mask_secret

from airflow_provider_heapbraze.clients.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.definitions.connection import Connection
    from requests import Session

    from airflow_provider_heapbraze.clients.transport import Transport

SHORT_TIMEOUT = (5.0, 15.0)
SESSION_EXTRAS = ("verify", "cert", "proxies", "trust_env")


def open_transport(connection: Connection, base_url: str, *, once: bool = False) -> Transport:
    """Open the way to a vendor.

    :param connection: its extras ``verify``, ``cert``, ``proxies`` and ``trust_env`` count here, as with an
        HTTP connection of Airflow.
    :param base_url: where requests go.
    :param once: one try and short timeouts: for a person who waits, or for who looks again anyway.
    :raises ConfigurationError: the address is not allowed.
    """
    # Parsing a DAG file must not load what sends.
    from airflow_provider_heapbraze.clients.address import normalise_base_url
    from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport

    place = normalise_base_url(base_url)
    session = _open_session(connection, place)
    if once:
        # Somebody looks at the form and waits, or looks again soon: no waiting for a limit.
        return Transport(session, place, timeout=SHORT_TIMEOUT, retry=RetryPolicy(attempts=1, patience=0.0))
    return Transport(session, place)


def _open_session(connection: Connection, base_url: str) -> Session:
    """Return the session that ``HttpHook`` makes, with the connection's TLS, proxy and keep-alive settings.

    ``HttpHook`` puts login and password into basic auth, and every extra that it does not know into a header,
    keys among them: it is shown a connection that holds nothing but those settings.
    """
    from airflow.providers.http.hooks.http import HttpHook
    from airflow.sdk.definitions.connection import Connection

    extra = connection.extra_dejson
    settings = {name: extra[name] for name in SESSION_EXTRAS if name in extra}
    bare = Connection(conn_id=connection.conn_id, conn_type="http", host=base_url, extra=json.dumps(settings))

    class BareHttpHook(HttpHook):
        """``HttpHook`` of the bare connection."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:  # noqa: ARG003 - there is only one
            return bare

    return BareHttpHook().get_conn()


def address(connection: Connection) -> str | None:
    """Return the address that the host and the port of a connection give, or None."""
    host = text(connection.host)
    return f"{host}:{connection.port}" if host and connection.port else host


def text(value: Any) -> str | None:
    """Return a field's text without the blanks that copying brings along; None where it is empty."""
    return (str(value).strip() or None) if value is not None else None


def whole_number(extra: Mapping[str, Any], name: str, usual: int) -> int:
    """Return an extra that is a whole number above 0.

    :param usual: where the connection does not say.
    :raises ConfigurationError: it is none.
    """
    given = text(extra.get(name))
    if given is None:
        return usual
    if not given.isdecimal() or int(given) < 1:
        raise ConfigurationError(f"The extra {name} of the connection must be a whole number above 0.")
    return int(given)


def secrets(value: Any) -> tuple[str, ...]:
    """Return the secrets in a field, apart by commas or white space, and have Airflow mask each.

    Several are valid at once while one takes the place of another.
    """
    return tuple(filter(None, map(secret, re.split(r"[\s,]+", text(value) or ""))))


def secret(value: Any) -> str | None:
    """Return a field's text, and have Airflow mask it in every log.

    Airflow masks extras by their names, and not in every version and process; ``data_import_key`` in none.
    """
    key = text(value)
    if key:
        mask_secret(key)
    return key

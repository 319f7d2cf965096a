"""Where requests go: only places where a key is safe on its way."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from airflow_provider_heapbraze.clients.errors import ConfigurationError

DEFAULT_PORTS = {"https": 443, "http": 80}


def normalise_base_url(address: str) -> str:
    """Return an address in the one form that names it: lower case, no default port, no slash at the end.

    :param address: a URL, or a host, which means https.
    :raises ConfigurationError: it is no https address (http is for this machine only: keys would travel
        readable), or it carries a user name, a query or a fragment. The message does not repeat it, since it
        may hold a password.
    """
    parts = _split(address.strip())
    if parts is None:
        raise ConfigurationError("The host is no https address. Give it like https://rest.iad-01.braze.com.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            "The host has a user name, a query or a fragment in it. Give only scheme, name and port."
        )
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"The host {host} is given with http: the keys would travel readable. Use https; http is for "
            "this machine only."
        )
    name = f"[{host}]" if ":" in host else host
    place = name if port in {None, DEFAULT_PORTS[parts.scheme]} else f"{name}:{port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"


def check_signed_url(url: str) -> None:
    """Look that a URL which is a secret itself goes only where it is safe on its way.

    :raises ConfigurationError: it is no https address (http is for this machine only), or it carries a user
        name. The message does not repeat it.
    """
    parts = _split(url)
    if parts is None or parts.username is not None:
        raise ConfigurationError("The signed URL is no https address. Nothing was sent.")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            "The signed URL is an http address: it would travel readable, and whoever reads it has the file. "
            "Nothing was sent."
        )


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its very name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _split(text: str) -> SplitResult | None:
    """Take an address apart; None where it is none. Errors of the parser quote it, so they end here."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        named = parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        return None
    return parts if named and parts.scheme in DEFAULT_PORTS and not re.search(r"\s", text) else None

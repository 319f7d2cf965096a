"""Which Braze workspace, with which keys, within which limits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from airflow_provider_heapbraze.clients.budget import Limit
from airflow_provider_heapbraze.clients.errors import ConfigurationError

# Braze: API overview, endpoints. There is no US-09.
INSTANCE_HOSTS = {
    **{f"US-{number:02}": f"https://rest.iad-{number:02}.braze.com" for number in range(1, 9)},
    "US-10": "https://rest.us-10.braze.com",
    **{f"EU-{number:02}": f"https://rest.fra-{number:02}.braze.eu" for number in (1, 2)},
    **{f"{place}-01": f"https://rest.{place.lower()}-01.braze.com" for place in ("AU", "ID", "JP", "KR")},
}
REST_HOST = re.compile(r"https://rest\.([a-z]+)-([0-9]+)\.(braze\.(?:com|eu))")
KEY = re.compile(r"[!-~]+")
PARTNER_NAME = re.compile(r"[A-Za-z0-9._~-]+")


def instance_host(instance: str) -> str:
    """Return the REST endpoint of an instance.

    :param instance: its name in Braze's dashboard, for example ``US-01``.
    :raises ConfigurationError: the name is not known here; new ones appear, so the host may be given instead.
    """
    host = INSTANCE_HOSTS.get(instance.strip().upper())
    if host is None:
        raise ConfigurationError(
            f"No Braze instance is known by the name {instance!r}. Known are {', '.join(INSTANCE_HOSTS)}. "
            "For another one give the host itself: the REST endpoint that Braze's dashboard shows."
        )
    return host


def dashboard_of(host: str) -> str:
    """Return the address of the dashboard of a REST endpoint's instance; empty where it is none of Braze's.

    Braze: API overview: ``rest.iad-01.braze.com`` has ``dashboard-01.braze.com``, ``rest.us-10.braze.com``
    has ``dashboard.us-10.braze.com``.
    """
    found = REST_HOST.fullmatch(host)
    if not found:
        return ""
    place, number, domain = found.groups()
    old = place in {"iad", "fra"}
    return f"https://dashboard-{number}.{domain}" if old else f"https://dashboard.{place}-{number}.{domain}"


@dataclass(frozen=True)
class BrazeKeys:
    """What proves who we are; the repr shows no key.

    :param rest_api_key: for REST endpoints.
    :param partner_name: the partner's name in the path of the cohort endpoints.
    :param partner_api_key: issued by Braze to the partner, one for the US instances and one for the EU's.
    :param data_import_key: the customer's, from Partner Integrations > Technology Partners.
    :raises ConfigurationError: one of them has characters that none of its kind has.
    """

    rest_api_key: str | None = field(default=None, repr=False)
    partner_name: str = "heap"
    partner_api_key: str | None = field(default=None, repr=False)
    data_import_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("rest_api_key", "partner_api_key", "data_import_key"):
            key = getattr(self, name)
            if key and not KEY.fullmatch(key):
                raise ConfigurationError(
                    f"The {name} has a space, a line break or another character in it that no key has. Copy "
                    "it into the connection again."
                )
        if not PARTNER_NAME.fullmatch(self.partner_name):
            raise ConfigurationError(
                "The partner_name is part of a URL: only letters, digits, dots, hyphens and underscores."
            )


PARTNER_LIMIT = Limit(250_000, 3600.0)
TRACK_LIMIT = Limit(3000, 3.0)
POOL_LIMIT = Limit(250_000, 3600.0)
IDS_LIMIT = Limit(250, 60.0)


@dataclass(frozen=True)
class BrazeLimits:
    """Braze's limits per workspace; contracts differ (Braze: API rate limits).

    :param cohort: the two cohort endpoints together; they count toward no other limit.
    :param track: ``/users/track``.
    :param pool: shared by the endpoints that have no limit of their own, segments among them.
    :param attributes_per_request: objects in one ``/users/track`` request.
    :param ids: ``/users/export/ids``; workspaces from before 2024-08-22 have 2,500 a minute.
    """

    cohort: Limit = PARTNER_LIMIT
    track: Limit = TRACK_LIMIT
    pool: Limit = POOL_LIMIT
    attributes_per_request: int = 75
    ids: Limit = IDS_LIMIT


DEFAULT_LIMITS = BrazeLimits()

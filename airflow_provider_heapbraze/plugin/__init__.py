"""What this package adds to Airflow's API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import conf

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

LANDING_PREFIX = "/heapbraze/landing"
PAGE_PREFIX = "/heapbraze/page"


def _apps() -> list[dict[str, Any]]:
    """Return what the API server mounts; every Airflow process asks, and only that one serves it."""
    apps: list[dict[str, Any]] = [{"name": "heapbraze page", "url_prefix": PAGE_PREFIX, "app": _page}]
    if conf.getboolean("heapbraze", "landing", fallback=False):
        from airflow_provider_heapbraze.plugin.landing import landing

        apps.append({"name": "heapbraze landing", "url_prefix": LANDING_PREFIX, "app": landing})
    return apps


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the page; what it is made of is loaded by its first request."""
    from airflow_provider_heapbraze.plugin.page import page

    await page(scope, receive, send)


class HeapBrazePlugin(AirflowPlugin):
    """Show what the ledger knows; take what Heap and Braze push, where ``[heapbraze] landing`` says so."""

    name = "heapbraze"
    fastapi_apps = _apps()
    external_views = [  # noqa: RUF012 - as Airflow declares it
        {
            "name": "Heap ↔ Braze",
            # Relative to the address of Airflow's UI, which a proxy may have put under a path.
            "href": f"{PAGE_PREFIX.removeprefix('/')}/",
            "destination": "nav",
            "url_route": "heapbraze",
        }
    ]

"""What this package adds to Airflow's API server."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.sdk import conf

LANDING_PREFIX = "/heapbraze/landing"


def _apps() -> list[dict[str, Any]]:
    """Return what the API server mounts; every Airflow process asks, and only that one serves it."""
    if not conf.getboolean("heapbraze", "landing", fallback=False):
        return []
    from airflow_provider_heapbraze.plugin.landing import landing

    return [{"name": "heapbraze landing", "url_prefix": LANDING_PREFIX, "app": landing}]


class HeapBrazePlugin(AirflowPlugin):
    """Take what Heap and Braze push, where ``[heapbraze] landing`` says so."""

    name = "heapbraze"
    fastapi_apps = _apps()

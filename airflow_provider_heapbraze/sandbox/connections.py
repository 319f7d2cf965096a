"""How Airflow reaches the sandbox: its keys, and the two connections that use them.

The keys open nothing but the sandbox; what it does not ask for itself, the landing service of a demo does.
"""

from __future__ import annotations

import json
from typing import Any

REST_API_KEY = "sandbox-rest-api-key"
PARTNER_NAME = "heap"
PARTNER_API_KEY = "sandbox-partner-api-key"
DATA_IMPORT_KEY = "sandbox-data-import-key"
HEAP_APP_ID = "sandbox-heap-app-id"
HEAP_API_KEY = "sandbox-heap-api-key"
WEBHOOK_SECRET = "sandbox-webhook-secret"  # noqa: S105 - as above
CURRENTS_TOKEN = "sandbox-currents-token"  # noqa: S105 - as above


def braze_connection(url: str) -> dict[str, Any]:
    """Return an Airflow connection of type ``braze`` that reaches the sandbox.

    :param url: the sandbox's address, for example ``http://127.0.0.1:8765``.
    """
    return {
        "conn_type": "braze",
        "host": url,
        "password": REST_API_KEY,
        "extra": {
            "partner_api_key": PARTNER_API_KEY,
            "data_import_key": DATA_IMPORT_KEY,
            "currents_token": CURRENTS_TOKEN,
        },
    }


def heap_connection(url: str) -> dict[str, Any]:
    """Return an Airflow connection of type ``heap`` that reaches the sandbox.

    :param url: the sandbox's address, for example ``http://127.0.0.1:8765``.
    """
    return {
        "conn_type": "heap",
        "host": url,
        "login": HEAP_APP_ID,
        "password": HEAP_API_KEY,
        "extra": {"region": "us", "webhook_secret": WEBHOOK_SECRET},
    }


def environment(url: str) -> dict[str, str]:
    """Return the environment variables that make both connections Airflow's defaults.

    :param url: the sandbox's address, for example ``http://127.0.0.1:8765``.
    """
    return {
        "AIRFLOW_CONN_BRAZE_DEFAULT": json.dumps(braze_connection(url)),
        "AIRFLOW_CONN_HEAP_DEFAULT": json.dumps(heap_connection(url)),
    }

"""All that Airflow reads when it looks for providers.

It does so at every start, before anything of this package is needed: nothing of ours is imported here.
"""

from __future__ import annotations

from typing import Any

_PACKAGE = "airflow_provider_heapbraze"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-heapbraze",
        "name": "Heap and Braze",
        "description": "Move people and events between `Heap <https://www.heap.io/>`__ and "
        "`Braze <https://www.braze.com/>`__.",
        "integrations": [
            {
                "integration-name": "Heap",
                "external-doc-url": "https://developers.heap.io/reference",
                "tags": ["service"],
            },
            {
                "integration-name": "Braze",
                "external-doc-url": "https://www.braze.com/docs/api/home",
                "tags": ["service"],
            },
        ],
        "operators": [
            {"integration-name": "Heap", "python-modules": [f"{_PACKAGE}.operators.match"]},
            {
                "integration-name": "Braze",
                "python-modules": [
                    f"{_PACKAGE}.operators.{name}"
                    for name in ("approval", "cohort", "currents", "ledger", "segment", "verify")
                ],
            },
        ],
        "sensors": [
            {"integration-name": "Heap", "python-modules": [f"{_PACKAGE}.sensors.heap_connect"]},
            {"integration-name": "Braze", "python-modules": [f"{_PACKAGE}.sensors.currents"]},
        ],
        "triggers": [
            {"integration-name": "Heap", "python-modules": [f"{_PACKAGE}.triggers.heap_connect"]},
            {
                "integration-name": "Braze",
                "python-modules": [f"{_PACKAGE}.triggers.currents", f"{_PACKAGE}.triggers.segment"],
            },
        ],
        "hooks": [
            {"integration-name": "Heap", "python-modules": [f"{_PACKAGE}.hooks.heap"]},
            {"integration-name": "Braze", "python-modules": [f"{_PACKAGE}.hooks.braze"]},
        ],
        "notifications": [f"{_PACKAGE}.notifications.HeapBrazeNotifier"],
        "connection-types": [_BRAZE_CONNECTION, _HEAP_CONNECTION],
        "extra-links": [f"{_PACKAGE}.links.HeapBrazeRunLink"],
        "asset-uris": [{"schemes": ["braze", "heap"], "handler": None}],
        "config": {
            "heapbraze": {
                "description": "Moving people and events between Heap and Braze.",
                "options": {
                    "ledger": {
                        "description": "Where the record of what was sent is kept, for tasks that name no "
                        "ledger of their own: a location that Airflow's object storage and every worker "
                        "reach. Default: ``heapbraze-ledger`` under Airflow's home.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/heapbraze",
                        "default": None,
                    },
                    "budget": {
                        "description": "Where workers on several hosts count what they send to Braze, so "
                        "that all of them together keep its limits: the id of a connection of type ``redis`` "
                        "or ``postgres``. Default: what runs on one host counts together, in a file.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "heapbraze_budget",
                        "default": None,
                    },
                    "landing": {
                        "description": "Whether the API server takes what Heap's Segments Sync and Braze's "
                        "Currents push, at ``/heapbraze/landing``. The connections ``heap_default`` "
                        "(``webhook_secret``) and ``braze_default`` (``currents_token``) say who may push.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "True",
                        "default": "False",
                    },
                    "landing_path": {
                        "description": "Where it is written: a location that Airflow's object storage and "
                        "every worker reach.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/landed",
                        "default": None,
                    },
                },
            }
        },
    }


_BRAZE_CONNECTION: dict[str, Any] = {
    "connection-type": "braze",
    "hook-class-name": f"{_PACKAGE}.hooks.braze.BrazeHook",
    "hook-name": "Braze",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "login", "port"],
        "relabeling": {"host": "REST endpoint", "password": "REST API key"},
        "placeholders": {
            "host": "https://rest.iad-01.braze.com; leave empty where the instance is given",
            "password": "for attribute delivery and segments",
        },
    },
    "conn-fields": {
        "instance": {
            "label": "Instance",
            "description": "The name of your Braze instance, for example US-01; it gives the REST endpoint.",
            "schema": {"type": ["string", "null"]},
        },
        "partner_name": {
            "label": "Partner name",
            "description": "For cohort delivery: the partner's name in the path of Braze's cohort endpoints.",
            "schema": {"type": ["string", "null"], "default": "heap"},
        },
        "partner_api_key": {
            "label": "Partner API key",
            "description": "For cohort delivery: the key that Braze issues to a partner, one for the US "
            "instances and one for the EU's.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "data_import_key": {
            "label": "Data import key",
            "description": "For cohort delivery: in Braze under Partner Integrations > Technology Partners.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "currents_token": {
            "label": "Currents token",
            "description": "The bearer token with which Currents posts to the landing service. Several, "
            "apart by commas, while one is changed for another.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
    },
}

_HEAP_CONNECTION: dict[str, Any] = {
    "connection-type": "heap",
    "hook-class-name": f"{_PACKAGE}.hooks.heap.HeapHook",
    "hook-name": "Heap",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "port"],
        "relabeling": {"login": "App ID", "password": "API key"},
        "placeholders": {
            "host": "leave empty: the region says which",
            "login": "the environment's id",
            "password": "only for deletion and for the connection test",
        },
    },
    "conn-fields": {
        "region": {
            "label": "Region",
            "description": "Where Heap keeps your data.",
            "schema": {"type": ["string", "null"], "enum": ["us", "eu"], "default": "us"},
        },
        "webhook_secret": {
            "label": "Webhook secret",
            "description": "Proves that what a Segments Sync webhook brings comes from Heap. Several, apart "
            "by commas, while one is changed for another.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
        "pii_salt": {
            "label": "Salt for personal data",
            "description": "Goes into the hashes of personal data, where an export is told to hash it.",
            "schema": {"type": ["string", "null"], "format": "password"},
        },
    },
}

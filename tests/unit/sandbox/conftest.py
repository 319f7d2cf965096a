"""Callers of the sandbox that know nothing of this package's clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from airflow_provider_heapbraze.sandbox import connections
from airflow_provider_heapbraze.sandbox.client import Sandbox


@dataclass
class Caller:
    """What a customer of Braze and Heap would write."""

    url: str
    session: requests.Session
    cohort_id: str = "cohort-1"

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        return self.session.post(
            self.url + path,
            json=body,
            headers={k.replace("_", "-"): v for k, v in headers.items()},
            timeout=10,
        )

    def get(self, path: str, key: str = connections.REST_API_KEY) -> requests.Response:
        return self.session.get(self.url + path, headers={"Authorization": f"Bearer {key}"}, timeout=10)

    def partner(
        self, path: str, *, partner: str = "heap", agent: str = "partner-Heap-Test/1.0", **body: Any
    ) -> requests.Response:
        keys = {
            "partner_api_key": connections.PARTNER_API_KEY,
            "client_secret": connections.DATA_IMPORT_KEY,
            "cohort_id": self.cohort_id,
        }
        whole = {name: value for name, value in {**keys, **body}.items() if value is not ...}
        return self.post(f"/partners/{partner}{path}", whole, User_Agent=agent)

    def name(self, **body: Any) -> requests.Response:
        whole = {"name": "Power users", "created_at": "2026-01-02T03:04:05.000Z", **body}
        return self.partner("/cohorts", **whole)

    def change(self, *changes: Any, **body: Any) -> requests.Response:
        return self.partner("/cohorts/users", **{"cohort_changes": list(changes), **body})

    def add(self, *user_ids: str) -> requests.Response:
        return self.change({"user_ids": list(user_ids), "device_ids": [], "aliases": []})

    def track(self, *attributes: Any, key: str = connections.REST_API_KEY, **body: Any) -> requests.Response:
        whole = {"attributes": list(attributes), **body}
        return self.post("/users/track", whole, Authorization=f"Bearer {key}")

    def export(
        self, segment_id: Any = "s", *, fields: Any = ("external_id",), **body: Any
    ) -> requests.Response:
        whole = {"segment_id": segment_id, "fields_to_export": fields, **body}
        return self.rest("/users/export/segment", **whole)

    def people(self, **body: Any) -> requests.Response:
        return self.rest("/users/export/ids", **body)

    def rest(self, path: str, key: str = connections.REST_API_KEY, **body: Any) -> requests.Response:
        whole = {name: value for name, value in body.items() if value is not ...}
        return self.post(path, whole, Authorization=f"Bearer {key}")

    def fetch(self, url: str, **headers: str) -> requests.Response:
        return self.session.get(url, headers=headers, timeout=10)

    def heap(self, path: str, **body: Any) -> requests.Response:
        return self.post(path, {"app_id": connections.HEAP_APP_ID, **body})


@pytest.fixture
def caller(heapbraze_sandbox: Sandbox) -> Iterator[Caller]:
    with requests.Session() as session:
        session.trust_env = False
        yield Caller(heapbraze_sandbox.url, session)

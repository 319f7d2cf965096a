"""Fixtures of the receiver's tests."""

from __future__ import annotations

import httpx
import pytest

from airflow_provider_heapbraze.landing.app import make_app
from tests.unit.landing.receiving import Clock, Receiver, Switch, server_of, serving, settings


@pytest.fixture(scope="session")
def _switched():
    switch = Switch()
    with (
        serving(server_of(switch)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield switch, client


@pytest.fixture
def receiving(_switched):
    """A receiver on loopback, for a path and other settings."""

    def start(path, **others):
        switch, client = _switched
        clock = Clock()
        switch.app = make_app(settings(path, **others), clock=clock)
        return Receiver(client, clock)

    return start


@pytest.fixture
def receiver(receiving, tmp_path):
    """A receiver that lands in ``tmp_path / "landing"``."""
    return receiving(tmp_path / "landing")

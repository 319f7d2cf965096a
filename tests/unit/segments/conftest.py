from __future__ import annotations

from contextlib import contextmanager

import pytest
import requests

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, Limit
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport
from airflow_provider_heapbraze.sandbox import connections


@contextmanager
def reading(sandbox):
    session = requests.Session()
    session.trust_env = False
    transport = Transport(session, sandbox.url, retry=RetryPolicy(attempts=2, first=0.001, cap=0.002))
    limits = BrazeLimits(ids=Limit(10_000, 1))
    with BrazeClient(transport, BrazeKeys(connections.REST_API_KEY), limits) as client:
        yield client.reads


@pytest.fixture
def braze(heapbraze_sandbox):
    """Give a Braze of its own, with nobody in it."""
    return heapbraze_sandbox


@pytest.fixture
def reads(braze):
    with reading(braze) as reads:
        yield reads


@pytest.fixture
def fresh_reads(braze):
    """Give what makes a client for one example: its budget is its own."""
    return lambda: reading(braze)

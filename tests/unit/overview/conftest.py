from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from airflow_provider_heapbraze.overview import index
from tests.unit.membership.conftest import Nightly


def people(numbers):
    return [f"user-{number}" for number in numbers]


@pytest.fixture
def nightly(heapbraze_sandbox, tmp_path):
    """Give a target with one finished run: 30 people, and one row without an identifier."""
    heapbraze_sandbox.add_users(count=60)
    nightly = Nightly(heapbraze_sandbox, tmp_path)
    nightly.run([*people(range(30)), ""], "cohorts/run-1/import")
    return nightly


@pytest.fixture
def leave_unfinished(nightly):
    """Return what leaves a run of which only the cohort's new name was accepted."""

    def leave(run_id="cohorts/run-2/import"):
        retry, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
        nightly.sandbox.faults(next=[{"count": 1, "status": 500, "endpoint": "cohort-users"}])
        with pytest.raises(TransientError):
            nightly.run(people(range(5, 35)), run_id, name="Another name")
        nightly.retry = retry

    return leave


@pytest.fixture
def at_once(monkeypatch):
    """Every look reads what there is, and waits for it; logs are read when a test says so."""
    monkeypatch.setattr(index, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(index, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(index, "PAUSE_SECONDS", 3600.0)

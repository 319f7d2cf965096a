from __future__ import annotations

import pytest

from airflow_provider_heapbraze.clients.errors import TransientError
from airflow_provider_heapbraze.clients.transport import RetryPolicy
from tests.unit.membership.conftest import Nightly


def people(numbers):
    return [f"user-{number}" for number in numbers]


@pytest.fixture(autouse=True, scope="session")
def logging_is_set_up():
    """Import Airflow before a test's output is looked at.

    It sets up logging for the whole process: to what the output is then, in all later tests, too.
    """
    from airflow_provider_heapbraze.locations import configured_ledger

    configured_ledger()


@pytest.fixture
def nightly(heapbraze_sandbox, tmp_path):
    """Give a target with one finished run."""
    heapbraze_sandbox.add_users(count=60)
    nightly = Nightly(heapbraze_sandbox, tmp_path)
    nightly.run(people(range(30)), "run-1")
    return nightly


@pytest.fixture
def unfinished(nightly):
    """Leave a second run of which only the cohort's new name was accepted."""
    retry, nightly.retry = nightly.retry, RetryPolicy(attempts=1)
    nightly.sandbox.faults(next=[{"count": 1, "status": 500, "endpoint": "cohort-users"}])
    with pytest.raises(TransientError):
        nightly.run(people(range(5, 35)), "run-2", name="Another name")
    nightly.retry = retry
    return nightly

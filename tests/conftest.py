"""The fixtures of every test: the sandbox, and an Airflow of its own. Nothing here imports Airflow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = [
    "airflow_provider_heapbraze.sandbox.pytest_plugin",
    "pytester",
    "tests.airflow_home",
    "tests.postgres_server",
    "tests.redis_server",
    "tests.spark_server",
]

# How long an example takes says little where other processes want the same cores.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(autouse=True, scope="session")
def no_power_cut() -> Iterator[None]:
    """Let nothing wait for the disk: a process may be killed here, a machine is not.

    Whether files are flushed, and when, is asked by tests that count the calls.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares one Airflow or one Spark on one worker: it is started once, or imported once."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        shared = next(
            (name for name in ("running_airflow", "airflow_commands", "spark") if name in names), None
        )
        if shared:
            item.add_marker(pytest.mark.xdist_group(shared))

"""The fixtures of every test: the sandbox, and an Airflow of its own. Nothing here imports Airflow."""

from __future__ import annotations

import pytest

pytest_plugins = [
    "airflow_provider_heapbraze.sandbox.pytest_plugin",
    "pytester",
    "tests.airflow_home",
    "tests.postgres_server",
]


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares one Airflow on one worker: it is started once, or imported once."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        shared = next((name for name in ("running_airflow", "airflow_commands") if name in names), None)
        if shared:
            item.add_marker(pytest.mark.xdist_group(shared))

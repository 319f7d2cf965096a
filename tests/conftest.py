"""The fixtures of every test: the sandbox, and an Airflow of its own. Nothing here imports Airflow."""

from __future__ import annotations

pytest_plugins = [
    "airflow_provider_heapbraze.sandbox.pytest_plugin",
    "pytester",
    "tests.airflow_home",
]

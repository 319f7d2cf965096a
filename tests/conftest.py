"""The sandbox's fixtures, for every test."""

from __future__ import annotations

pytest_plugins = ["airflow_provider_heapbraze.sandbox.pytest_plugin", "pytester"]

"""A fixture for tests of DAGs and pipelines.

::

    pytest_plugins = ["airflow_provider_heapbraze.sandbox.pytest_plugin"]


    def test_nightly(heapbraze_sandbox, monkeypatch):
        heapbraze_sandbox.add_users(count=1000)
        for name, value in heapbraze_sandbox.environment().items():
            monkeypatch.setenv(name, value)
        ...
        assert heapbraze_sandbox.state()["cohorts"]["power-users"]["size"] == 1000
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_heapbraze.sandbox.client import Sandbox


@pytest.fixture(scope="session")
def heapbraze_sandbox_server() -> Iterator[Sandbox]:
    """Give the sandbox that all tests of a session share."""
    # Loaded by the first test that needs it, not by every test run.
    from airflow_provider_heapbraze.sandbox.server import SandboxServer

    with SandboxServer() as sandbox:
        yield sandbox


@pytest.fixture
def heapbraze_sandbox(heapbraze_sandbox_server: Sandbox) -> Sandbox:
    """Give a sandbox that is empty, and works as Braze and Heap do on a good day."""
    heapbraze_sandbox_server.reset()
    return heapbraze_sandbox_server

"""Airflow for the tests, in a home of its own; and a server on this machine that stands for both vendors.

Airflow reads its environment when it is first imported: it is set here, before any test module is.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOME = tempfile.TemporaryDirectory(prefix="heapbraze-airflow-")
os.environ["AIRFLOW_HOME"] = HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


def pytest_configure(config: pytest.Config) -> None:
    # Airflow's own models still use what it deprecates.
    config.addinivalue_line("filterwarnings", "ignore:ProvidersManager.hooks is deprecated")
    # Its API server loads the test clients of what it is made of.
    config.addinivalue_line(
        "filterwarnings", "ignore:Using .httpx. with .starlette.testclient. is deprecated"
    )
    # Airflow itself uses what is deprecated: by itself, and, on Airflow 3.1, by its libraries of today.
    for said in (
        "ProvidersManager.hooks is deprecated",
        "The `airflow\\..* attribute is deprecated",
        "The ``noload`` loader strategy is deprecated",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{said}")


def pytest_unconfigure() -> None:
    HOME.cleanup()


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


@dataclass
class Vendor:
    """A server that answers as it is told, by path, and keeps what it was sent."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, Any]:
        self.requests.append(request)
        return self.answers.get(request.path.split("?")[0], (404, {"message": "no such path"}))


@pytest.fixture(autouse=True)
def counted_apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for what another one sent, or was told."""
    folder = tmp_path_factory.mktemp("budget")
    monkeypatch.setattr("airflow_provider_heapbraze.hooks._budget.shared_folder", lambda: folder)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    state = Vendor()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = state.answer(Request(self.command, self.path, headers, body))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = handle_any  # noqa: N815 - the names that the server looks for

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Define a connection as users do in deployments: JSON in the environment."""

    def define(conn_type: str, **fields: Any) -> str:
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{conn_type.upper()}_TEST", json.dumps({"conn_type": conn_type, **fields})
        )
        return f"{conn_type}_test"

    return define


@pytest.fixture
def sandbox(heapbraze_sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a sandbox that is both default connections, and knows the people of the cohort tests."""
    # Loaded after the environment of Airflow is set.
    from tests.airflow.cohorts import PEOPLE

    for name, value in heapbraze_sandbox.environment().items():
        monkeypatch.setenv(name, value)
    heapbraze_sandbox.add_users([{"external_id": person} for person in PEOPLE])
    return heapbraze_sandbox


@pytest.fixture
def pipeline(sandbox: Any, tmp_path: Any) -> Any:
    """Give one cohort's tasks."""
    from tests.airflow.cohorts import Pipeline

    return Pipeline(tmp_path)

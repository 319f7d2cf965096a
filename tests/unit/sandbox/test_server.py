"""How the sandbox is started: on loopback only, as a process, in a thread, by the pytest plugin."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time

import pytest
import requests

from airflow_provider_heapbraze.sandbox import connections
from airflow_provider_heapbraze.sandbox.__main__ import main
from airflow_provider_heapbraze.sandbox.models import Faults
from airflow_provider_heapbraze.sandbox.server import SandboxServer, listen


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104 - to be refused
def test_it_listens_on_this_machine_only(host):
    with pytest.raises(ValueError, match=r"loopback|IPv4"):
        listen(host, 0)
    with pytest.raises(SystemExit):
        main(["--host", host, "--port", "0"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_addresses_are_bound(host):
    with listen(host, 0) as sock:
        assert sock.getsockname()[0].startswith("127.")


def test_a_taken_port_is_told():
    with listen("127.0.0.1", 0) as sock, pytest.raises(SystemExit, match="in use"):
        main(["--port", str(sock.getsockname()[1])])


def test_answers_do_not_wait_for_acknowledgements(heapbraze_sandbox):
    def seconds() -> float:
        start = time.monotonic()
        heapbraze_sandbox.health()
        return time.monotonic() - start

    assert statistics.median(seconds() for _ in range(21)) < 0.03


def test_two_servers_in_one_process_share_nothing():
    with SandboxServer(users=2) as one, SandboxServer() as other:
        assert one.url != other.url
        assert (one.state()["users"]["total"], other.state()["users"]["total"]) == (2, 0)
        one.reset()
        assert one.state()["users"]["total"] == 2


def test_faults_it_started_with_come_back_with_a_reset():
    with SandboxServer(faults=Faults(rates={"5xx-before": 1})) as sandbox:
        sandbox.faults()
        sandbox.reset()
        answer = requests.post(
            f"{sandbox.url}/api/public/v0/auth_token",
            auth=(connections.HEAP_APP_ID, connections.HEAP_API_KEY),
            timeout=10,
        )
        assert answer.status_code >= 500


def test_it_is_gone_when_it_was_left():
    with SandboxServer() as sandbox:
        url = sandbox.url
        assert sandbox.health()["status"] == "ok"
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{url}/sandbox/health", timeout=2)


def test_the_connections_open_it(heapbraze_sandbox):
    braze, heap = heapbraze_sandbox.braze_connection(), heapbraze_sandbox.heap_connection()
    extra = braze["extra"]
    assert (braze["conn_type"], braze["host"]) == ("braze", heapbraze_sandbox.url)
    assert (heap["conn_type"], heap["host"], heap["extra"]) == (
        "heap",
        heapbraze_sandbox.url,
        {"region": "us", "webhook_secret": connections.WEBHOOK_SECRET},
    )

    partner = requests.post(
        f"{braze['host']}/partners/{connections.PARTNER_NAME}/cohorts/users",
        json={
            "partner_api_key": extra["partner_api_key"],
            "client_secret": extra["data_import_key"],
            "cohort_id": "x",
            "cohort_changes": [],
        },
        headers={"User-Agent": "partner-Heap-Test/1.0"},
        timeout=10,
    )
    rest = requests.get(
        f"{braze['host']}/segments/list", headers={"Authorization": f"Bearer {braze['password']}"}, timeout=10
    )
    token = requests.post(
        f"{heap['host']}/api/public/v0/auth_token", auth=(heap["login"], heap["password"]), timeout=10
    )
    assert (partner.status_code, rest.status_code, token.status_code) == (201, 200, 200)
    assert {name: json.loads(value) for name, value in heapbraze_sandbox.environment().items()} == {
        "AIRFLOW_CONN_BRAZE_DEFAULT": braze,
        "AIRFLOW_CONN_HEAP_DEFAULT": heap,
    }


def test_it_runs_as_a_process_and_says_how_to_reach_it():
    command = [sys.executable, "-W", "error", "-m", "airflow_provider_heapbraze.sandbox", "--port", "0"]
    options = ["--users", "3", "--latency", "0.01", "--faults", '{"rates": {"423": 1}}']
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            url = re.search(r"http://127\.0\.0\.1:\d+", lines[0]).group()
            name, value = shlex.split(lines[2])[1].split("=", 1)
            assert (name, json.loads(value)["host"]) == ("AIRFLOW_CONN_BRAZE_DEFAULT", url)
            state = requests.get(f"{url}/sandbox/state", timeout=10).json()
            assert state["users"]["total"] == 3
            heap = requests.post(f"{url}/api/track", json={"app_id": connections.HEAP_APP_ID}, timeout=10)
            assert heap.status_code == 400
            token = requests.post(
                f"{url}/api/public/v0/auth_token",
                auth=(connections.HEAP_APP_ID, connections.HEAP_API_KEY),
                timeout=10,
            )
            assert token.status_code == 423
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=10)
        assert process.stderr.read() == ""


@pytest.mark.parametrize("faults", ["{", '{"no": 1}'])
def test_faults_that_cannot_be_read_stop_it_at_once(faults):
    with pytest.raises(SystemExit, match="--faults"):
        main(["--port", "0", "--faults", faults])


def test_the_plugin_gives_every_test_an_empty_sandbox(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    pytester.makeconftest('pytest_plugins = ["airflow_provider_heapbraze.sandbox.pytest_plugin"]')
    pytester.makepyfile(
        """
        import sys

        import pytest

        @pytest.mark.parametrize("turn", [1, 2])
        def test_it_is_empty(heapbraze_sandbox, turn):
            assert heapbraze_sandbox.add_users(count=turn)["total"] == turn
            assert heapbraze_sandbox.state()["requests"] == {}

        def test_airflow_is_not_loaded():
            assert "airflow" not in sys.modules
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_the_package_alone_loads_no_web_framework():
    code = (
        "import sys, airflow_provider_heapbraze.sandbox.connections, "
        "airflow_provider_heapbraze.sandbox.pytest_plugin; "
        "print([name for name in ('fastapi', 'starlette', 'uvicorn', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

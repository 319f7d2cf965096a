"""A running task is told to end while answers are held back: what was accepted is recorded all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from airflow_provider_heapbraze.membership.delivery import CONNECTIONS
from airflow_provider_heapbraze.sandbox import connections
from tests.currents import samples

PROJECT = Path(__file__).parents[2]
ROWS = 50_000
PER_REQUEST = 1000
# So many requests are answered; those that come later wait until the test lets them go.
ANSWERED = 3


class Gate:
    """A way to the sandbox that holds back the requests to one path."""

    def __init__(self, sandbox, path):
        self.sandbox = sandbox
        self.path = path
        self.lock = threading.Lock()
        self.came = 0
        self.open = threading.Event()

    def pass_on(self, method, path, headers, body):
        if path == self.path:
            with self.lock:
                self.came += 1
                number = self.came
            if number > ANSWERED:
                self.open.wait()
        return requests.request(method, self.sandbox.url + path, headers=headers, data=body, timeout=60)

    @contextmanager
    def serving(self):
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                answer = gate.pass_on(self.command, self.path, headers, body)
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = handle_any  # noqa: N815 - the names that the server looks for

            def log_message(self, *args):
                """Keep the test's output clean."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                self.open.set()
                server.shutdown()
                thread.join()


class Case:
    """One kind of task.

    :param connections: requests that it has under way at the same time.
    """

    def __init__(self, name, path, under_way, settled, what):
        self.name = name
        self.path = path
        self.under_way = under_way
        self.settled = settled
        self.what = what


def settled_changes(ledger):
    records = [json.loads(path.read_text()) for path in ledger.glob("targets/*/plans/*/settled/*.json")]
    return sum(end - start for record in records for start, end in record["acknowledged"])


def sent_events(ledger):
    records = [json.loads(path.read_text()) for path in ledger.glob("sources/*/progress/*.json")]
    return sum(record["counts"].get("sent", 0) for record in records)


COHORT = Case(
    "cohort", "/partners/heap/cohorts/users", CONNECTIONS, settled_changes, "of 50,000 changes are settled"
)
SEGMENT = Case(
    "segment", "/api/add_user_properties", CONNECTIONS, settled_changes, "of 50,000 changes are settled"
)
CURRENTS = Case("currents", "/api/track", 4, sent_events, "of them sent")
people = [f"private-person-{number:05}" for number in range(ROWS)]


def prepare(case, sandbox, home):
    """Put down what the task reads."""
    if case is COHORT:
        (home / "members.csv").write_text("\n".join(["identity", *people, ""]))
    elif case is SEGMENT:
        sandbox.add_users([{"external_id": person} for person in people])
        sandbox.add_segments([{"id": "segment-one", "name": "Everybody"}])
    else:
        (home / "source").mkdir()
        custom = samples.schema("users.behaviors.CustomEvent")
        samples.write_avro(home / "source" / "a.avro", custom, list(samples.numbered(10_000)), "snappy")


def environment(url):
    """Return the connections, with a limit of Heap that none of the requests waits for."""
    heap = connections.heap_connection(url)
    heap["extra"]["property_requests_per_30_seconds"] = 1000
    return {**connections.environment(url), "AIRFLOW_CONN_HEAP_DEFAULT": json.dumps(heap)}


@contextmanager
def running(case, gate, home):
    """Run the task in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.airflow.ending", case.name, str(home)],
        cwd=PROJECT,
        env={**os.environ, **environment(gate.url), "TMPDIR": str(home), "NO_PROXY": "*"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        gate.open.set()
        process.kill()
        process.communicate()


def wait_for(process, what):
    until = time.monotonic() + 120
    while not what():
        assert process.poll() is None, f"it must still be at work: {process.stdout.read()}"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("case", "end"),
    [
        pytest.param(COHORT, signal.SIGTERM, id="on_kill-cohort"),
        pytest.param(COHORT, signal.SIGALRM, id="execution_timeout-cohort"),
        pytest.param(SEGMENT, signal.SIGTERM, id="on_kill-segment"),
        pytest.param(CURRENTS, signal.SIGALRM, id="execution_timeout-currents"),
    ],
)
def test_what_was_accepted_is_recorded_while_answers_are_held_back(case, end, heapbraze_sandbox, tmp_path):
    prepare(case, heapbraze_sandbox, tmp_path)
    ledger = tmp_path / "ledger"
    under_way = ANSWERED + case.under_way
    with Gate(heapbraze_sandbox, case.path).serving() as gate, running(case, gate, tmp_path) as process:
        wait_for(process, lambda: gate.came == under_way)
        process.send_signal(end)
        wait_for(process, lambda: case.settled(ledger) == ANSWERED * PER_REQUEST)
        gate.open.set()
        said = process.communicate(timeout=120)[0]
        assert gate.came == under_way, "nothing more is sent"
        assert case.settled(ledger) == under_way * PER_REQUEST, "answers that come late count, too"
    kind, message = json.loads(said.splitlines()[-1])
    assert kind == {"SIGTERM": "AirflowException", "SIGALRM": "AirflowTaskTimeout"}[end.name]
    assert case.what in message
    assert f"{under_way * PER_REQUEST:,}" in message
    assert "a re-run goes on with the rest" in message
    assert ("execution_timeout is over" in message) == (end is signal.SIGALRM)
    assert "private-person" not in said

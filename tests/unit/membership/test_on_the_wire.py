"""What reaches the cohort API, body by body.

Each case is a fact about what another sender of cohorts puts on the wire, restated for segments; ``differs``
says where this package does better.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

KEYS = {"partner_api_key": "sandbox-partner-api-key", "client_secret": "sandbox-data-import-key"}
COHORT = {**KEYS, "cohort_id": "cohort-under-test"}


@pytest.fixture
def recorder():
    """A server that takes everything, and keeps it."""
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append((self.path, body))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", bodies=bodies)
        server.shutdown()


@pytest.fixture
def wire(recorder, tmp_path, nightly_class):
    target = nightly_class(recorder, tmp_path)

    def run(rows, run_id="run-1", **how):
        before = len(recorder.bodies)
        target.run(rows, run_id, **how)
        return recorder.bodies[before:]

    return run


def name(text="Cohort"):
    return "/partners/heap/cohorts", {**COHORT, "name": text}


def members(*changes):
    return "/partners/heap/cohorts/users", {**COHORT, "cohort_changes": list(changes)}


def change(user_ids=(), device_ids=(), aliases=(), **flag):
    named = [{"alias_name": alias, "alias_label": "email"} for alias in aliases]
    return {"user_ids": list(user_ids), "device_ids": list(device_ids), "aliases": named, **flag}


def without_times(bodies):
    """Leave out when the cohort was made, which is now; that it is ISO 8601 is the sandbox's to check."""
    return [
        (path, {key: value for key, value in body.items() if key != "created_at"}) for path, body in bodies
    ]


CASES = {
    "an external id goes over a device and an alias": (
        [["u1", "ann@x.test", "dev-1", ""]],
        [name(), members(change(["u1"]))],
    ),
    "without one the device goes over the alias": (
        [["", "ann@x.test", "dev-1", ""]],
        [name(), members(change(device_ids=["dev-1"]))],
    ),
    "differs: an identified user is never sent by device": (
        [["", "ann@x.test", "dev-1", "true"]],
        [name(), members(change(aliases=["ann@x.test"]))],
    ),
    "twice in the segment is sent once": (
        [["u9", "", "", ""], ["u9", "", "", ""]],
        [name(), members(change(["u9"]))],
    ),
    "differs: the second row of a person never falls through to the device": (
        [["u1", "", "dev-1", ""], ["u1", "", "dev-1", ""]],
        [name(), members(change(["u1"]))],
    ),
    "differs: no identifier is an unmatched row, and no cohort is made for nobody": (
        [["", "", "", ""]],
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_first_import(wire, case):
    rows, expected = CASES[case]
    assert without_times(wire(rows)) == expected


def test_a_name_that_is_known_is_not_sent_again_and_leaving_says_so(wire):
    wire([["u1", "", "", ""], ["u2", "", "", ""]])
    changed = without_times(wire([["u2", "", "", ""], ["u3", "", "", ""]], "run-2"))
    assert changed == [members(change(["u1"], should_remove=True)), members(change(["u3"]))]


def test_another_name_is_sent_before_the_members(wire):
    wire([["u1", "", "", ""]], name="Older name")
    assert without_times(wire([["u2", "", "", ""], ["u1", "", "", ""]], "run-2")) == [
        name("Cohort"),
        members(change(["u2"])),
    ]


def test_an_alias_leaves_by_name_and_label(wire):
    wire([["", "ann@x.test", "", ""]])
    (removal,) = without_times(wire([], "run-2"))
    assert removal == members(change(aliases=["ann@x.test"], should_remove=True))


def test_a_thousand_and_one(wire):
    (_, *requests) = wire([[f"u{number}", "", "", ""] for number in range(1001)])
    assert sorted(len(body["cohort_changes"][0]["user_ids"]) for _, body in requests) == [1, 1000]

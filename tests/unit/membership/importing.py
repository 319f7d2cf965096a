"""An import against a sandbox that is watched, in this process or in one that is killed."""

from __future__ import annotations

import csv
import json
import logging
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import requests

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, Limit
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport
from airflow_provider_heapbraze.membership import delivery, sync
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import FileMembers
from airflow_provider_heapbraze.membership.planning import Request
from airflow_provider_heapbraze.membership.senders import COHORT_KINDS, CohortSender
from airflow_provider_heapbraze.sandbox import connections
from airflow_provider_heapbraze.sandbox.server import SandboxServer

COHORT_ID = "cohort-under-test"
ANYTHING_GOES = Guards(max_removed_share=None, allow_empty=True)
# Of every kind but one: a 2xx that says nothing and was not applied looks like a success on these endpoints.
FAULTS = {
    "rates": {
        "423": 0.02,
        "429-bare": 0.01,
        "429-retry-after-seconds": 0.01,
        "429-reset-epoch": 0.002,
        "5xx-before": 0.02,
        "5xx-after": 0.02,
        "cut-before": 0.02,
        "cut-after": 0.02,
        "errors-before": 0.01,
        "errors-after": 0.01,
        "unclear-after": 0.01,
    },
    "wait": 0,
    "latency": 0.02,
    "slow_share": 0.05,
    "slow_seconds": 0.2,
}
# Answers are recorded every second, and none here takes another half. The real wait is for one of a minute.
LOSER_STOPS_WITHIN = 1.5


@dataclass(frozen=True)
class Sent:
    """People that one request named.

    :param at: when all of it had arrived, UTC epoch seconds.
    :param attempt: who sent it.
    """

    at: float
    attempt: int
    adds: set
    removes: set


class Watch:
    """Stands before the sandbox and keeps what comes in, which the sandbox's own log does not."""

    def __init__(self, app):
        self.app = app
        self.under_way = 0
        self.arrived = Counter()
        self._bodies = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or not scope["path"].endswith("/cohorts/users"):
            await self.app(scope, receive, send)
            return
        body = bytearray()

        async def watched():
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message["body"])
                if not message.get("more_body"):
                    self._note(scope, bytes(body))
            return message

        self.under_way += 1
        try:
            await self.app(scope, watched, send)
        finally:
            self.under_way -= 1

    def take(self):
        """Hand out what has come since the last time."""
        taken, self._bodies = self._bodies, []
        return [Sent(at, attempt, *_people(body)) for at, attempt, body in taken]

    def wait_until_quiet(self):
        while self.under_way:
            time.sleep(0.01)

    def _note(self, scope, body):
        attempt = int(dict(scope["headers"])[b"user-agent"].rpartition(b"/")[2])
        self._bodies.append((time.time(), attempt, body))
        self.arrived[attempt] += 1


def _people(body):
    directions = (set(), set())
    for change in json.loads(body)["cohort_changes"]:
        directions[change.get("should_remove", False)].update(map(number_of, change["user_ids"]))
    return directions


def person(number):
    return f"user-{number}"


def number_of(person):
    return int(person.removeprefix("user-"))


@contextmanager
def watched_sandbox():
    """Run a sandbox of its own; gives it, and the :class:`Watch` before it."""
    server = SandboxServer()
    watch = Watch(server._server.config.app)
    server._server.config.app = watch
    with server as sandbox:
        yield sandbox, watch


class LocalAccess:
    """Members in local files."""

    def path(self, uri):
        return Path(uri)

    def query(self, conn_id, sql):
        raise NotImplementedError


@dataclass(frozen=True)
class Place:
    """Where an import runs: its sandbox, its files and its pace.

    :param requests_per_second: so that an import takes long enough to be killed in it.
    """

    url: str
    home: Path
    requests_per_second: int

    @property
    def ledger(self):
        target = Target("cohort", {"braze": self.url, "partner": "heap", "cohort_id": COHORT_ID})
        return TargetLedger(self.home / "ledger", target)

    @property
    def scratch(self):
        """What a killed process leaves behind on the local disk is here."""
        return self.home / "scratch"

    def request(self, wanted, run_id, as_of):
        members = self.home / "members.csv"
        with members.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["identity"])
            writer.writerows([person(number)] for number in wanted)
        ledger = self.home / "ledger"
        result = match(FileMembers(str(members)), IdentityMapping("identity"), LocalAccess(), ledger)
        folder = ledger / "matches" / result.fingerprint
        return Request(run_id, result, folder, COHORT_KINDS, "Cohort", force_full=False, as_of=as_of)

    def run(self, request, attempt):
        session = requests.Session()
        session.trust_env = False
        keys = BrazeKeys(
            rest_api_key=connections.REST_API_KEY,
            partner_api_key=connections.PARTNER_API_KEY,
            data_import_key=connections.DATA_IMPORT_KEY,
        )
        transport = Transport(session, self.url, retry=RetryPolicy(attempts=20, first=0.01, cap=0.05))
        limits = BrazeLimits(cohort=Limit(self.requests_per_second, 1.0))
        agent = f"partner-Heap-Test/{attempt}"
        with (
            patch.object(sync, "LOSER_STOPS_WITHIN", LOSER_STOPS_WITHIN),
            patch.object(delivery, "LOSER_STOPS_WITHIN", LOSER_STOPS_WITHIN),
            BrazeClient(transport, keys, limits, partner_user_agent=agent) as client,
        ):
            run = sync.Sync(self.ledger, CohortSender(client, COHORT_ID), client.statistics, LocalAccess())
            return run.run(request, ANYTHING_GOES)


def run_in_a_process(place, request, attempt, began):
    """Import; the target of a process that is killed.

    :param began: told when the work begins: moments are counted from then on.
    """
    logging.disable(logging.ERROR)
    tempfile.tempdir = str(place.scratch)
    began.send(True)
    place.run(request, attempt)

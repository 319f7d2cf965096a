from __future__ import annotations

import csv
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits
from airflow_provider_heapbraze.clients.transport import RetryPolicy, Transport
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.guards import Guards
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import FileMembers
from airflow_provider_heapbraze.membership.planning import Request
from airflow_provider_heapbraze.membership.restoring import find_run, match_of_run
from airflow_provider_heapbraze.membership.senders import (
    ATTRIBUTE_KINDS,
    COHORT_KINDS,
    AttributeSender,
    CohortSender,
)
from airflow_provider_heapbraze.membership.spaces import Spaces
from airflow_provider_heapbraze.membership.sync import Sync
from airflow_provider_heapbraze.sandbox import connections

COHORT_ID = "cohort-under-test"
ATTRIBUTE = "in_cohort_under_test"
ANYTHING_GOES = Guards(max_removed_share=None, allow_empty=True, max_size_factor=None)
MAPPING = IdentityMapping(
    external_id="identity",
    alias_name="email",
    alias_label="email",
    device_id="device",
    identified="identified",
)


class LocalAccess:
    """Members in local files."""

    def path(self, uri):
        return Path(uri)

    def query(self, conn_id, sql):
        raise NotImplementedError


class Nightly:
    """One target, synchronised night after night against the sandbox.

    A subclass does the set work elsewhere.
    """

    engine = ""
    access = LocalAccess()

    def __init__(self, sandbox, folder, delivery="cohort"):
        self.sandbox = sandbox
        self.folder = folder
        self.delivery = delivery
        place = (
            {"partner": "heap", "cohort_id": COHORT_ID} if delivery == "cohort" else {"attribute": ATTRIBUTE}
        )
        target = Target(delivery, {"braze": sandbox.url, **place})
        self.ledger = TargetLedger(folder / "ledger", target, Spaces(self.access, self.engine))
        self.retry = RetryPolicy(first=0.005, cap=0.02)
        self.limits = BrazeLimits()

    @contextmanager
    def client(self):
        keys = BrazeKeys(
            rest_api_key=connections.REST_API_KEY,
            partner_api_key=connections.PARTNER_API_KEY,
            data_import_key=connections.DATA_IMPORT_KEY,
        )
        transport = Transport(requests.Session(), self.sandbox.url, retry=self.retry)
        with BrazeClient(transport, keys, self.limits) as client:
            yield client

    def sender(self, client):
        return (
            CohortSender(client, COHORT_ID)
            if self.delivery == "cohort"
            else AttributeSender(client, ATTRIBUTE)
        )

    def match(self, rows):
        """Match rows of (identity, email, device, identified); a plain text is an external id."""
        file = self.folder / "members.csv"
        with file.open("w", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(["identity", "email", "device", "identified"])
            writer.writerows([row, "", "", "true"] if isinstance(row, str) else row for row in rows)
        return match(FileMembers(str(file)), MAPPING, LocalAccess(), self.folder / "ledger")

    def request(self, rows, run_id="run-1", *, force_full=False, name="Cohort", as_of="2026-11-24", **upkeep):
        result = self.match(rows)
        return Request(
            run_id=run_id,
            match=result,
            match_folder=self.folder / "ledger" / "matches" / result.fingerprint,
            kinds=COHORT_KINDS if self.delivery == "cohort" else ATTRIBUTE_KINDS,
            name=name if self.delivery == "cohort" else None,
            force_full=force_full,
            as_of=as_of,
            goes_on=force_full,
            **upkeep,
        )

    def sync(self, client):
        return Sync(self.ledger, self.sender(client), client.statistics, self.access)

    def run(self, rows, run_id="run-1", guards=ANYTHING_GOES, **how):
        with self.client() as client:
            return self.sync(client).run(self.request(rows, run_id, **how), guards)

    def restore(self, run_id, as_run="restore", guards=ANYTHING_GOES, as_of="2026-11-25"):
        """Go back to what a run left."""
        root = self.folder / "ledger"
        commit = find_run(self.ledger, run_id)
        result = match_of_run(self.ledger, commit, root)
        request = Request(
            run_id=as_run,
            match=result,
            match_folder=root / "matches" / result.fingerprint,
            kinds=COHORT_KINDS,
            name=commit.name,
            force_full=False,
            as_of=as_of,
            goes_on=True,
        )
        with self.client() as client:
            return self.sync(client).run(request, guards)

    def members(self):
        """Return whom Braze holds."""
        if self.delivery == "attribute":
            return set(self.sandbox.attribute(ATTRIBUTE)["true"])
        if COHORT_ID not in self.sandbox.state()["cohorts"]:
            return set()
        return set(self.sandbox.cohort(COHORT_ID)["members"])

    def sent(self, since=0):
        """Return the requests that reached a target, as (endpoint, status)."""
        return [(entry["endpoint"], entry["status"]) for entry in self.sandbox.requests(since=since)]

    def bodies(self):
        """Return the hash of every request that was accepted."""
        return [entry["body_sha256"] for entry in self.sandbox.requests() if entry["status"] in {200, 201}]


@pytest.fixture
def nightly_class():
    return Nightly


@pytest.fixture
def make_nightly(heapbraze_sandbox, tmp_path_factory, nightly_class):
    """Make a target of its own in a sandbox with so many users; what was in the sandbox is gone."""

    def make(delivery="cohort", users=3000):
        heapbraze_sandbox.reset()
        heapbraze_sandbox.add_users(count=users)
        return nightly_class(heapbraze_sandbox, tmp_path_factory.mktemp("nightly"), delivery)

    return make


@pytest.fixture
def nightly(make_nightly):
    return make_nightly()


@pytest.fixture
def nightly_attribute(make_nightly):
    return make_nightly("attribute")

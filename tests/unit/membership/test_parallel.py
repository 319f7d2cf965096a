"""Processes import different cohorts at once: together they keep Braze's limit, and each cohort is exact."""

from __future__ import annotations

import csv
import multiprocessing
from pathlib import Path

import requests

from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, Limit
from airflow_provider_heapbraze.clients.budget_stores import FileStore
from airflow_provider_heapbraze.clients.clock import SYSTEM_CLOCK
from airflow_provider_heapbraze.clients.transport import Transport
from airflow_provider_heapbraze.membership.entries import Target
from airflow_provider_heapbraze.membership.identity import IdentityMapping
from airflow_provider_heapbraze.membership.ledger import TargetLedger
from airflow_provider_heapbraze.membership.matching import match
from airflow_provider_heapbraze.membership.members import FileMembers
from airflow_provider_heapbraze.membership.planning import Request
from airflow_provider_heapbraze.membership.senders import COHORT_KINDS, CohortSender
from airflow_provider_heapbraze.membership.sync import Sync
from airflow_provider_heapbraze.sandbox import connections
from tests.unit.membership.importing import ANYTHING_GOES, LocalAccess

ROWS_PER_REQUEST = 10
# Each keeps this limit, and two of them alone would pass the sandbox's.
OURS = Limit(30, 1.0)
THEIRS = {"limit": 45, "seconds": 1.0}


def people_of(cohort):
    return [f"person-{number}" for number in range(cohort * 100, cohort * 100 + 400)]


def import_cohort(url, home, cohort):
    """Import a cohort; the target of a process."""
    folder = Path(home) / str(cohort)
    folder.mkdir()
    with (folder / "members.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["identity"], *([person] for person in people_of(cohort))])
    ledger = TargetLedger(
        folder, Target("cohort", {"braze": url, "partner": "heap", "cohort_id": str(cohort)})
    )
    result = match(
        FileMembers(str(folder / "members.csv")), IdentityMapping("identity"), LocalAccess(), folder
    )
    request = Request(
        "run",
        result,
        folder / "matches" / result.fingerprint,
        COHORT_KINDS,
        "Cohort",
        force_full=False,
        as_of="2026-11-24",
    )
    keys = BrazeKeys(partner_api_key=connections.PARTNER_API_KEY, data_import_key=connections.DATA_IMPORT_KEY)
    store = FileStore(lambda: Path(home), SYSTEM_CLOCK)
    transport = Transport(requests.Session(), url)
    with BrazeClient(transport, keys, BrazeLimits(cohort=OURS), store=store) as client:
        sender = CohortSender(client, str(cohort))
        sender.rows_per_request = ROWS_PER_REQUEST
        Sync(ledger, sender, client.statistics, LocalAccess()).run(request, ANYTHING_GOES)


def test_cohorts_that_are_imported_at_once_keep_the_limit(heapbraze_sandbox, tmp_path):
    sandbox = heapbraze_sandbox
    sandbox.add_users(count=1000, prefix="person-")
    sandbox.settings(limits={"cohorts": THEIRS})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.membership.importing", "duckdb", "pyarrow.parquet"])
    processes = [
        context.Process(target=import_cohort, args=(sandbox.url, str(tmp_path), cohort))
        for cohort in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    for cohort in range(4):
        assert sorted(sandbox.cohort(str(cohort))["members"]) == sorted(people_of(cohort))
    assert sandbox.state()["limits_broken"] == {}
    assert {entry["status"] for entry in sandbox.requests()} == {201}

"""The nightly cohort DAG, as users copy it, against the sandbox."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from tests.airflow_home import COHORT_ID, DAG_ID, PROPERTY, SEGMENT_ID

SEGMENTS_DAG_ID = "braze_segments_to_heap"
PEOPLE = [f"private-person-{number:06}" for number in range(2500)]


def test_two_nights_and_the_way_back(airflow):
    """A Heap segment → Braze's cohort → its segment, verified equal → Heap's property: the segment again."""
    sandbox = airflow.sandbox
    sandbox.settings(export_delay=0.5, export_users_per_file=400)
    sandbox.add_users([{"external_id": person} for person in PEOPLE])
    sandbox.add_segments([{"id": SEGMENT_ID, "name": "The cohort", "cohort_id": COHORT_ID}])
    airflow.write_cohort(segment_id=SEGMENT_ID)
    airflow.write_segment([*PEOPLE[:2000], PEOPLE[0], ["", "", "private-device-0001", "true"]])
    printed = airflow.test_dag("2026-11-23")
    assert set(sandbox.cohort(COHORT_ID)["members"]) == set(PEOPLE[:2000])

    airflow.write_segment(PEOPLE[100:])
    printed += airflow.test_dag("2026-11-24")
    assert set(sandbox.cohort(COHORT_ID)["members"]) == set(PEOPLE[100:])

    printed += airflow.test_dag("2026-11-24", dag_id=SEGMENTS_DAG_ID)
    assert {user["identity"]: user["properties"] for user in sandbox.heap_users()} == {
        person: {PROPERTY: "true"} for person in PEOPLE[100:]
    }

    first, second = (report["waterfall"] for report in airflow.records("targets/cohort-*/reports"))
    assert first["members"] == 2002
    assert first["duplicates"] == 1
    assert first["unmatched"] == {"identified_without_id": 1}
    assert (second["adds"], second["removes"], second["unchanged"]) == (500, 100, 1900)
    names = ("held", "in_segment", "missing", "surplus", "unknown")
    assert [
        [found[name] for name in names] for found in airflow.records("targets/cohort-*/verifications")
    ] == [[2000, 2000, 0, 0, 0], [2400, 2400, 0, 0, 0]]

    events = airflow.query(
        "SELECT a.uri, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id ORDER BY e.id"
    )
    uris = [f"braze://cohort/{COHORT_ID}", f"braze://cohort/{COHORT_ID}", f"heap://property/{PROPERTY}"]
    assert [uri for uri, _ in events] == uris
    extras = [json.loads(extra) for _, extra in events]
    counts = [{name: extra[name] for name in ("size", "adds", "removes")} for extra in extras]
    assert counts[1:] == [
        {"size": 2400, "adds": 500, "removes": 100},
        {"size": 2400, "adds": 2400, "removes": 0},
    ]
    assert extras[1]["verified"]["check"] == "segment"
    assert_nothing_private(airflow, printed)


def assert_nothing_private(airflow, printed):
    """No identifier, no key and no URL that opens a file: in what was printed, nor in Airflow's database."""
    database = (airflow.home / "airflow.db").read_bytes()
    urls = [entry["url"] for entry in airflow.records("segments/*/exports/*/log") if "url" in entry]
    assert len(urls) == 3
    secrets = ["private-person-", "private-device-", "sandbox-partner-api-key", "sandbox-data-import-key"]
    for secret in [*secrets, "sandbox-rest-api-key", "sandbox-heap-app-id", *urls]:
        name = secret.rpartition("/")[2]
        assert name not in printed
        assert name.encode() not in database


def test_clearing_in_a_running_airflow_sends_nothing_twice(running_airflow, heapbraze_sandbox):
    """A finished and a half-failed import, cleared as on call: Braze takes each batch once."""
    airflow, sandbox = running_airflow, heapbraze_sandbox
    everybody = [f"private-person-{number:06}" for number in range(8000)]
    sandbox.add_users([{"external_id": person} for person in everybody])
    airflow.write_segment(everybody[:2000])
    night(airflow, "first-night", "success")
    assert set(sandbox.cohort(COHORT_ID)["members"]) == set(everybody[:2000])
    accepted = accepted_bodies(sandbox)
    airflow.run("tasks", "clear", DAG_ID, "--task-regex", "cohort.import", "--yes")
    airflow.wait_for(lambda: import_task(airflow, "first-night") == ("success", 2))
    assert accepted_bodies(sandbox) == accepted, "a finished import that is cleared sends nothing"

    # The next night Braze takes two of six batches, then refuses the key: no retry, the task is red.
    airflow.write_segment(everybody)
    taken = {"count": 2, "status": 201, "applied": True, "endpoint": "cohort-users"}
    refused = {"count": 50, "status": 401, "endpoint": "cohort-users"}
    sandbox.faults(next=[taken, refused])
    night(airflow, "second-night", "failed")
    half_way = accepted_bodies(sandbox)
    assert len(half_way) == len(accepted) + 2

    sandbox.faults()
    clear_in_the_ui(airflow, "second-night")
    airflow.wait_for(lambda: import_task(airflow, "second-night") == ("success", 2))
    assert set(sandbox.cohort(COHORT_ID)["members"]) == set(everybody)
    whole = accepted_bodies(sandbox)
    assert len(whole) == len(half_way) + 4
    assert len(set(whole)) == len(whole), "no accepted batch was sent again"


def test_a_killed_import_is_tried_again_and_sends_nothing_twice(running_airflow, heapbraze_sandbox):
    """The import's process is killed in the middle of its delivery; Airflow notices, and tries it again."""
    airflow, sandbox = running_airflow, heapbraze_sandbox
    everybody = [f"private-person-{number:06}" for number in range(8000)]
    sandbox.add_users([{"external_id": person} for person in everybody])
    airflow.write_segment(everybody)
    taken = {"count": 3, "status": 201, "applied": True, "endpoint": "cohort-users"}
    sandbox.faults(next=[taken], endpoints=["cohort-users"], rates={"423": 1})  # three, and it stands still
    airflow.run("dags", "trigger", DAG_ID, "--run-id", "killed-night")
    airflow.wait_for(lambda: recorded_people(airflow) == 3000)
    before = accepted_bodies(sandbox)
    airflow.kill_task()
    airflow.wait_for(lambda: import_task(airflow, "killed-night") == ("up_for_retry", 1))
    sandbox.faults()
    let_the_retry_delay_pass(airflow)
    airflow.wait_for(lambda: import_task(airflow, "killed-night") == ("success", 2))
    closed = "SELECT state FROM dag_run WHERE run_id = 'killed-night'"
    airflow.wait_for(lambda: airflow.query(closed) == [("success",)])
    assert set(sandbox.cohort(COHORT_ID)["members"]) == set(everybody)
    whole = accepted_bodies(sandbox)
    assert len(whole) == len(before) + 5
    assert len(set(whole)) == len(whole), "no accepted batch was sent again"
    (report,) = airflow.records("targets/cohort-*/reports")
    assert report["settled_by_earlier_attempts"] == 3000
    assert report["waterfall"]["acknowledged"] == report["size"] == 8000


def recorded_people(airflow):
    records = airflow.records("targets/cohort-*/plans/*/settled")
    return sum(end - start for record in records for start, end in record["acknowledged"])


def let_the_retry_delay_pass(airflow):
    """Make the failure an hour old: a retry waits for minutes."""
    with closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30)) as database, database:
        database.execute(
            "UPDATE task_instance SET end_date = datetime(end_date, '-1 hour') WHERE state = 'up_for_retry'"
        )


def night(airflow, run_id, state):
    airflow.run("dags", "trigger", DAG_ID, "--run-id", run_id)
    airflow.wait_for(lambda: import_task(airflow, run_id) == (state, 1))
    # Clearing a task at the moment at which the scheduler closes its run leaves the task cleared for good.
    closed = f"SELECT state FROM dag_run WHERE run_id = '{run_id}'"
    airflow.wait_for(lambda: airflow.query(closed) == [(state,)])


def clear_in_the_ui(airflow, run_id):
    """Clear the task of one run by the call that a click in Airflow's UI makes."""
    airflow.api(
        "POST",
        f"dags/{DAG_ID}/clearTaskInstances",
        dry_run=False,
        dag_run_id=run_id,
        task_ids=["cohort.import"],
        only_failed=False,
        reset_dag_runs=True,
    )


def import_task(airflow, run_id):
    rows = airflow.query(
        "SELECT state, try_number FROM task_instance "
        f"WHERE run_id = '{run_id}' AND task_id = 'cohort.import' AND map_index = 0"
    )
    return rows[0] if rows else None


def accepted_bodies(sandbox):
    sent = [entry for entry in sandbox.requests() if entry["endpoint"] in {"cohort", "cohort-users"}]
    return [entry["body_sha256"] for entry in sent if entry["status"] == 201]

"""The DAGs that read Braze's segments, as users copy them, against the sandbox."""

from __future__ import annotations

import json

from tests.airflow_home import COHORT_ID, PROPERTY, SEGMENT_ID

DAG_ID = "braze_segments_to_heap"
PEOPLE = [f"private-person-{number:06}" for number in range(2500)]
SECRETS = ("private-person-", "sandbox-rest-api-key", "sandbox-heap-app-id", "/exports/")


def property_in_heap(sandbox):
    users = [user for user in sandbox.heap_users() if PROPERTY in user["properties"]]
    return {user["identity"] for user in users if user["properties"][PROPERTY] == "true"}


def verifications(airflow):
    files = sorted(airflow.ledger.glob("targets/cohort-*/verifications/*.json"))
    return [json.loads(file.read_text()) for file in files]


def test_the_round_trip(airflow):
    """A Heap segment → Braze's cohort → its segment, verified → Heap's property: the first segment again."""
    sandbox = airflow.sandbox
    sandbox.settings(export_delay=0.5, export_users_per_file=400)
    sandbox.add_users([{"external_id": person} for person in PEOPLE])
    sandbox.add_segments([{"id": SEGMENT_ID, "name": "The cohort", "cohort_id": COHORT_ID}])
    airflow.write_cohort(segment_id=SEGMENT_ID)
    printed = ""
    for day, members in (("2026-11-23", PEOPLE[:2000]), ("2026-11-24", PEOPLE[100:])):
        airflow.write_segment(members)
        printed += airflow.test_dag(day)
        printed += airflow.test_dag(day, dag_id=DAG_ID)
        assert property_in_heap(sandbox) == set(members)

    counts = [
        {name: found[name] for name in ("held", "missing", "surplus")} for found in verifications(airflow)
    ]
    assert counts == [
        {"held": 2000, "missing": 0, "surplus": 0},
        {"held": 2400, "missing": 0, "surplus": 0},
    ]
    events = airflow.query(
        "SELECT a.uri, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id ORDER BY e.id"
    )
    cohort, heap = f"braze://cohort/{COHORT_ID}", f"heap://property/{PROPERTY}"
    assert [uri for uri, _ in events] == [cohort, heap, cohort, heap]
    assert json.loads(events[0][1])["verified"]["check"] == "segment"
    assert {name: json.loads(events[3][1])[name] for name in ("size", "adds", "removes")} == {
        "size": 2400,
        "adds": 500,
        "removes": 100,
    }
    assert_nothing_private(airflow, printed)


def test_a_killed_worker_and_a_restarted_triggerer_make_one_export(running_airflow, heapbraze_sandbox):
    """The worker dies right after it asked for the export; the triggerer while it waits for it."""
    airflow, sandbox = running_airflow, heapbraze_sandbox
    sandbox.add_users([{"external_id": person} for person in PEOPLE])
    sandbox.add_segments([{"id": SEGMENT_ID, "name": "Everybody"}])
    sandbox.settings(export_delay=30)
    sandbox.faults(endpoints=["segment-export-file"], latency=30)  # in its first look the worker is held
    airflow.run("dags", "unpause", DAG_ID)  # which starts the run of the last day
    airflow.wait_for(sandbox.exports)
    airflow.kill_task()
    airflow.wait_for(lambda: refresh_task(airflow) == "up_for_retry")
    sandbox.faults()
    clear_refresh(airflow)
    airflow.wait_for(lambda: refresh_task(airflow) == "deferred")
    airflow.restart_triggerer()
    airflow.wait_for(lambda: refresh_task(airflow) == "success", seconds=180)
    assert property_in_heap(sandbox) == set(PEOPLE)
    assert len(sandbox.exports()) == 1
    statuses = [entry["status"] for entry in sandbox.requests() if entry["endpoint"] == "segment-export"]
    assert statuses == [201], "nobody asked for a second one"


def refresh_task(airflow):
    rows = airflow.query(
        f"SELECT state FROM task_instance WHERE dag_id = '{DAG_ID}' AND task_id = 'segment.refresh' "
        "AND map_index = 0"
    )
    return rows[0][0] if rows else None


def clear_refresh(airflow):
    """Clear the task by the call that a click in Airflow's UI makes, not to wait for the retry."""
    airflow.api(
        "POST",
        f"dags/{DAG_ID}/clearTaskInstances",
        dry_run=False,
        dag_run_id=airflow.query(f"SELECT run_id FROM dag_run WHERE dag_id = '{DAG_ID}'")[0][0],
        task_ids=["segment.refresh"],
        only_failed=False,
        reset_dag_runs=True,
    )


def assert_nothing_private(airflow, printed):
    database = (airflow.home / "airflow.db").read_bytes()
    for secret in SECRETS:
        assert secret not in printed
        assert secret.encode() not in database

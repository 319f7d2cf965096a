"""The DAGs that export Currents events, as users copy them, against the sandbox."""

from __future__ import annotations

import json
import shutil

from tests.currents import samples

DAG_ID = "braze_currents_to_heap"
BACKFILL = "braze_currents_backfill"


def put(airflow, *event_types, hour):
    for event_type in event_types:
        folder = airflow.currents / f"event_type={event_type}" / f"date={hour}" / "1" / "zone"
        folder.mkdir(parents=True)
        shutil.copy(samples.avro_path(event_type), folder / f"{event_type}.avro")


def reports(airflow):
    return [json.loads(path.read_text()) for path in sorted(airflow.ledger.glob("sources/*/reports/*.json"))]


def test_two_hours_and_a_backfill(airflow):
    sandbox = airflow.sandbox
    put(airflow, *samples.TYPES[:25], hour="2026-11-24-10")
    printed = airflow.test_dag("2026-11-24T10:00:00", dag_id=DAG_ID)
    assert sandbox.heap_sends() == {1: 50}
    assert sandbox.heap_events()[0]["event"].startswith("Braze ")

    put(airflow, *samples.TYPES[25:], hour="2026-11-24-11")
    printed += airflow.test_dag("2026-11-24T11:00:00", dag_id=DAG_ID)
    assert sandbox.heap_sends() == {1: 100}

    days = {"start": "2026-11-24T11:00:00Z", "end": "2026-11-25T00:00:00Z"}
    printed += airflow.test_dag("2026-11-25T00:00:00", dag_id=BACKFILL, conf=days)
    assert "The backfill holds about 75 events in 25 files" in printed
    assert sandbox.state()["heap"]["events"] == 100, "Heap passes over what it has"

    assert [report["events"] for report in reports(airflow)] == [75, 75, 75]
    events = airflow.query("SELECT a.uri, e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id")
    assert [uri for uri, _ in events] == ["heap://events/braze"] * 2
    assert json.loads(events[0][1])["sent"] == 50
    database = (airflow.home / "airflow.db").read_bytes()
    for secret in ("-private", "@private.example", "sandbox-heap-app-id", "sandbox-heap-api-key"):
        assert secret not in printed
        assert secret.encode() not in database


def test_it_waits_without_a_worker_and_goes_on_after_a_clear(running_airflow, heapbraze_sandbox):
    """In a running Airflow: deferred until files come, red while Heap refuses, cleared, green; each once."""
    airflow, sandbox = running_airflow, heapbraze_sandbox
    airflow.run("dags", "unpause", DAG_ID)  # which starts the run of the last hour
    airflow.wait_for(lambda: state(airflow, "wait_for_files") == "deferred")

    records = [list(samples.numbered(1500, start=1500 * number)) for number in range(4)]
    taken = {"count": 2, "status": 204, "applied": True, "endpoint": "heap-track"}
    sandbox.faults(next=[taken, {"count": 99, "status": 401, "endpoint": "heap-track"}])
    for number, part in enumerate(records):
        path = airflow.currents / f".{number}.avro"  # put in place whole, as stores do
        samples.write_avro(path, samples.schema("users.behaviors.CustomEvent"), part)
        path.rename(airflow.currents / f"{number}.avro")
    airflow.wait_for(lambda: state(airflow, "export") == "failed", seconds=180)
    airflow.wait_for(
        lambda: airflow.query(f"SELECT state FROM dag_run WHERE dag_id = '{DAG_ID}'") == [("failed",)]
    )

    sandbox.faults()
    airflow.api(
        "POST",
        f"dags/{DAG_ID}/clearTaskInstances",
        dry_run=False,
        dag_run_id=airflow.query(f"SELECT run_id FROM dag_run WHERE dag_id = '{DAG_ID}'")[0][0],
        task_ids=["export"],
        only_failed=False,
        reset_dag_runs=True,
    )
    airflow.wait_for(lambda: state(airflow, "export") == "success", seconds=180)
    assert sandbox.state()["heap"]["events"] == 6000
    accepted = [entry for entry in sandbox.requests() if entry["status"] == 204]
    assert sum(entry["ids"]["set"]["identity"] for entry in accepted) == 6000, "no accepted event went again"


def state(airflow, task_id):
    rows = airflow.query(
        f"SELECT state FROM task_instance WHERE dag_id = '{DAG_ID}' AND task_id = '{task_id}'"
    )
    return rows[0][0] if rows else None

"""The DAG that brings Braze's segments into Heap, in a running Airflow; test_cohort_dag has its round."""

from __future__ import annotations

from tests.airflow_home import PROPERTY, SEGMENT_ID

DAG_ID = "braze_segments_to_heap"
PEOPLE = [f"private-person-{number:06}" for number in range(2500)]


def property_in_heap(sandbox):
    users = [user for user in sandbox.heap_users() if PROPERTY in user["properties"]]
    return {user["identity"] for user in users if user["properties"][PROPERTY] == "true"}


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

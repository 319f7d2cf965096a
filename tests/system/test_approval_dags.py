"""A person's part: the DAG that asks for an approval, and the one that undoes, as users copy them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

DAG_ID = "heap_cohort_with_approval"
RESTORE_DAG_ID = "braze_cohort_restore"
COHORT_ID = "heap-vip-customers"
PEOPLE = [f"private-person-{number:06}" for number in range(500)]


def test_a_person_rejects_approves_and_undoes(running_airflow, heapbraze_sandbox):
    airflow, sandbox = running_airflow, heapbraze_sandbox
    sandbox.add_users([{"external_id": person} for person in PEOPLE])
    airflow.write_segment(PEOPLE[:400])
    for dag_id in (DAG_ID, RESTORE_DAG_ID):
        airflow.api("PATCH", f"dags/{dag_id}", is_paused=False)  # which starts the run of the last day
    airflow.wait_for(lambda: ("import", "success") in states(airflow))
    assert held(sandbox) == set(PEOPLE[:400])

    airflow.write_segment(PEOPLE[200:])
    night(airflow, "rejected")
    answer(airflow, "rejected", "Reject")
    airflow.wait_for(lambda: ("import", "skipped") in states(airflow, "rejected"))
    assert held(sandbox) == set(PEOPLE[:400])

    night(airflow, "approved")
    answer(airflow, "approved", "Approve")
    airflow.wait_for(lambda: ("import", "success") in states(airflow, "approved"))
    assert held(sandbox) == set(PEOPLE[200:])

    decisions = airflow.records(f"targets/cohort-{COHORT_ID}-*/plans/*/decisions")
    assert [decision["approved"] for decision in sorted(decisions, key=lambda d: d["at"])] == [False, True]
    for decision in decisions:
        assert decision["guards"] == {"max_removed_share": 0.5}
        assert decision["by"] == "Anonymous", "where Airflow has no login, everybody is called so"
        assert datetime.fromisoformat(decision["at"]) <= datetime.now(UTC)

    first, approved = airflow.records("targets/cohort-*/reports")
    assert approved["approval"]["approved"]
    conf = {"cohort_id": COHORT_ID, "run_id": first["run_id"].split("/")[1], "max_removed_share": 0.5}
    start(airflow, RESTORE_DAG_ID, "undone", conf)
    airflow.wait_for(lambda: ("restore", "success") in states(airflow, "undone"))
    assert held(sandbox) == set(PEOPLE[:400])
    undone = airflow.records("targets/cohort-*/reports")[-1]
    assert (undone["waterfall"]["adds"], undone["waterfall"]["removes"], undone["size"]) == (200, 100, 400)
    assert b"private-person" not in (airflow.home / "airflow.db").read_bytes()


def held(sandbox):
    return set(sandbox.cohort(COHORT_ID)["members"])


def night(airflow, run_id):
    """Start a run, and wait until it asks."""
    start(airflow, DAG_ID, run_id)
    airflow.wait_for(
        lambda: {("approval", "awaiting_input"), ("approval", "deferred")} & states(airflow, run_id)
    )
    # Whoever answers before the scheduler has heard that the task's process is gone is asked again.
    heard = f"Received executor event with state success .*task_id='approval', run_id='{run_id}'"
    airflow.wait_for(lambda: re.search(heard, (airflow.home / "standalone.log").read_text()))


def start(airflow, dag_id, run_id, conf=None):
    """Start a run by the call that a click in Airflow's UI makes; so do the others here."""
    airflow.api("POST", f"dags/{dag_id}/dagRuns", dag_run_id=run_id, logical_date=None, conf=conf or {})


def answer(airflow, run_id, option):
    place = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/approval/-1/hitlDetails"
    question = airflow.api("GET", place)
    assert question["subject"] == "Braze cohort “Heap: VIP customers”: 100 people to add, 200 to remove"
    assert "| **in the cohort afterwards** | **300** |" in question["body"]
    airflow.api("PATCH", place, chosen_options=[option], params_input={})


def states(airflow, run_id=None):
    """Return the tasks of a run with their states; without a run, of the first one of the cohort's DAG."""
    which = f"run_id = '{run_id}'" if run_id else f"dag_id = '{DAG_ID}'"
    return set(airflow.query(f"SELECT task_id, state FROM task_instance WHERE {which}"))

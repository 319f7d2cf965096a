"""The proof that a cohort arrived, as Airflow calls it, against the sandbox."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk import Asset

from airflow_provider_heapbraze.members import FileMembers, IdentityMapping
from airflow_provider_heapbraze.operators.match import HeapUserMatchOperator
from airflow_provider_heapbraze.operators.verify import BrazeCohortVerifyOperator
from tests.airflow.cohorts import COHORT, PEOPLE, context, glance

SEGMENT = "segment-of-cohort-one"
ATTRIBUTE = "in_cohort_one"
BY_ATTRIBUTE = {"delivery": "attribute", "attribute": ATTRIBUTE}


@pytest.fixture
def verify(pipeline, sandbox):
    sandbox.add_segments(
        [
            {"id": SEGMENT, "name": "Cohort one", "cohort_id": COHORT["cohort_id"]},
            {"id": "segment-of-attribute", "name": "Attribute", "attribute": ATTRIBUTE},
        ]
    )

    def run(night=None, **arguments):
        arguments = {"max_lag": 0, "poll_interval": 0.05, "ledger": pipeline.ledger, **arguments}
        operator = BrazeCohortVerifyOperator(task_id="verify", cohort_id=COHORT["cohort_id"], **arguments)
        return operator.execute(night or context(task_id="verify"))

    return run


def lose_the_next_batch(sandbox, endpoint="cohort-users"):
    """Let Braze acknowledge a batch and drop it."""
    lost = {"status": 201, "body": {"message": "success"}, "applied": False, "endpoint": endpoint}
    sandbox.faults(next=[lost])


def findings(result_or_message):
    """Read the file that names those who differ."""
    uri = result_or_message["aside"]
    return {
        (row["finding"], row["kind"], row["value"])
        for row in pq.read_table(uri.removeprefix("file://")).to_pylist()
    }


def newest_verification(pipeline):
    folder = Path(pipeline.ledger.removeprefix("file://"))
    found = folder.glob("targets/*/verifications/*.json")
    return json.loads(max(found, key=lambda path: path.stat().st_mtime_ns).read_text())


def test_a_cohort_that_arrived_is_equal(verify, pipeline):
    pipeline.run([*PEOPLE, "private-stranger-1"])
    asset, night = Asset("one", uri="braze://cohort/cohort-1"), context(task_id="verify")
    result = verify(night, segment_id=SEGMENT, outlets=[asset])
    counts = {"held": 101, "in_segment": 100, "missing": 0, "surplus": 0, "unknown": 1, "not_checkable": 0}
    assert {name: result[name] for name in counts} == counts
    assert findings(result) == {("unknown", "external_id", "private-stranger-1")}
    extra = night["outlet_events"][asset].extra
    assert (extra["size"], extra["adds"], extra["removes"]) == (101, 101, 0)
    assert extra["verified"]["missing"] == 0
    assert newest_verification(pipeline)["verified_run_id"] == "cohorts/night-1/import"
    assert "private-" not in json.dumps([result, extra])


def test_lost_writes_are_found_person_by_person_and_healed(verify, pipeline, sandbox):
    pipeline.run(PEOPLE[:60])
    lose_the_next_batch(sandbox)
    pipeline.run(PEOPLE, context("night-2"))
    asset, night = Asset("one", uri="braze://cohort/cohort-1"), context(task_id="verify")
    with pytest.raises(AirflowFailException, match="40 are missing and 0 are surplus, of 100") as caught:
        verify(night, segment_id=SEGMENT, outlets=[asset])
    assert night["outlet_events"][asset].extra == {}, "nobody is told of a cohort that is not verified"
    assert "force_full=True" in str(caught.value)
    assert "private-person" not in str(caught.value)
    written = newest_verification(pipeline)
    assert written["aside"] in str(caught.value)
    assert findings(written) == {("missing", "external_id", person) for person in PEOPLE[60:]}

    pipeline.run(PEOPLE, context("night-3"), force_full=True)
    assert verify(segment_id=SEGMENT)["missing"] == 0


def test_existence_claims_no_more_than_it_can(verify, pipeline, sandbox):
    """Everybody exists, and nobody is in the cohort: a sample by identifiers cannot see that, and says so."""
    lose_the_next_batch(sandbox)
    pipeline.run([*PEOPLE, "private-stranger-1"])
    result = verify(sample=50)
    assert (result["check"], result["sample"], result["population"]) == ("existence", 50, 101)
    assert "missing" not in result
    assert result["claim"].startswith(("0 of 50 do not exist in Braze: fewer than 5.9 %", "1 of 50"))
    whole = verify(sample=600)
    said = (
        "1 of 101 do not exist in Braze: that is everybody who can be checked. Whether they are in the cohort"
    )
    assert whole["claim"].startswith(said)


def test_existence_sees_values_of_attributes(verify, pipeline, sandbox):
    lose_the_next_batch(sandbox, "users-track")
    pipeline.run(PEOPLE, **BY_ATTRIBUTE)
    with pytest.raises(AirflowFailException, match=r"(75|25) are missing and 0 are surplus, of 100"):
        verify(**BY_ATTRIBUTE)
    pipeline.run(PEOPLE, context("night-2"), force_full=True, **BY_ATTRIBUTE)
    result = verify(**BY_ATTRIBUTE)
    assert result["missing"] == 0
    assert "0 of 100 do not have the attribute: that is everybody who can be checked." in result["claim"]
    assert verify(segment_id="segment-of-attribute", **BY_ATTRIBUTE)["in_segment"] == 100

    lose_the_next_batch(sandbox, "users-track")
    pipeline.run(PEOPLE[5:], context("night-3"), **BY_ATTRIBUTE)
    with pytest.raises(AirflowFailException, match="0 are missing and 5 are surplus"):
        verify(**BY_ATTRIBUTE)


def test_somebody_who_was_added_by_hand_is_surplus(verify, pipeline, sandbox):
    sandbox.add_users([{"aliases": [{"alias_name": "private-alias", "alias_label": "email"}]}])
    pipeline.run(PEOPLE[:98])
    alias = {"alias_name": "private-alias", "alias_label": "email"}
    add_by_hand(sandbox, user_ids=[PEOPLE[99]], aliases=[alias])
    with pytest.raises(AirflowFailException, match="0 are missing and 2 are surplus"):
        verify(segment_id=SEGMENT)
    assert findings(newest_verification(pipeline)) == {
        ("surplus", "external_id", PEOPLE[99]),
        ("surplus", "alias", "private-alias"),
    }
    assert verify(segment_id=SEGMENT, tolerance=0.05)["surplus"] == 2


def add_by_hand(sandbox, **people):
    answer = requests.post(
        f"{sandbox.url}/partners/heap/cohorts/users",
        json={
            "partner_api_key": "sandbox-partner-api-key",
            "client_secret": "sandbox-data-import-key",
            "cohort_id": COHORT["cohort_id"],
            "cohort_changes": [people],
        },
        headers={"User-Agent": "partner-Heap-Tests/1"},
        timeout=10,
    )
    assert answer.status_code == 201


def test_reads_that_lag_behind_are_waited_for(verify, pipeline, sandbox):
    sandbox.settings(read_lag=3600)
    pipeline.run(PEOPLE)

    def exports():
        return [entry["status"] for entry in sandbox.requests() if entry["endpoint"] == "segment-export"]

    def catch_up():
        while 201 not in exports():
            time.sleep(0.01)
        sandbox.settings(read_lag=0)

    thread = threading.Thread(target=catch_up)
    thread.start()
    assert verify(segment_id=SEGMENT, max_lag=30)["missing"] == 0
    thread.join()
    assert len(exports()) > 1, "one look was not enough"


def test_a_lag_has_a_limit(verify, pipeline, sandbox):
    sandbox.settings(read_lag=60)
    pipeline.run(PEOPLE)
    with pytest.raises(AirflowFailException, match="100 are missing"):
        verify(segment_id=SEGMENT, max_lag=0.2)


def test_nobody_exists_is_a_wrong_mapping(verify, pipeline):
    pipeline.run([f"private-stranger-{n}" for n in range(10)])
    with pytest.raises(AirflowFailException, match="look at the mapping"):
        verify()
    assert verify(max_unknown_share=1.0)["unknown"] == 10


def test_nothing_to_verify(verify, pipeline, sandbox):
    with pytest.raises(AirflowFailException, match="Nothing was imported"):
        verify(segment_id=SEGMENT)
    sandbox.faults(next=[{"count": 50, "status": 401, "endpoint": "cohort-users"}])
    with pytest.raises(AirflowFailException, match="401"):
        pipeline.run(PEOPLE)
    with pytest.raises(AirflowException, match="has not ended") as caught:
        verify(segment_id=SEGMENT)
    assert not isinstance(caught.value, AirflowFailException), "a later try may find that it has"


def test_nobody_who_can_be_checked_is_no_proof(verify, pipeline, sandbox):
    sandbox.add_users([{"device_ids": ["private-device-1"]}])
    add_by_device(pipeline, "private-device-1")
    for how in ({}, {"segment_id": SEGMENT}):
        with pytest.raises(AirflowFailException, match="nobody could be checked"):
            verify(**how)


def add_by_device(pipeline, *devices):
    """Import people whom only a device id names."""
    pipeline.file.write_text("\n".join(["device", *devices, ""]))
    match = HeapUserMatchOperator(
        task_id="match",
        members=FileMembers(pipeline.file.as_uri()),
        mapping=IdentityMapping(external_id=None, device_id="device"),
        ledger=pipeline.ledger,
    ).execute(context())
    return pipeline.run(match=match)


def test_silence_about_people_is_not_taken_for_unknown(verify, pipeline, sandbox):
    lose_the_next_batch(sandbox)
    pipeline.run(PEOPLE)
    silent = {"status": 201, "body": {"message": "success", "users": []}, "endpoint": "users-export-ids"}
    sandbox.faults(next=[silent])
    with pytest.raises(AirflowException, match="says nothing of 50 of 50 people"):
        verify(segment_id=SEGMENT)
    with pytest.raises(AirflowFailException, match="100 are missing"):
        verify(segment_id=SEGMENT)
    exports = [entry["status"] for entry in sandbox.requests() if entry["endpoint"] == "segment-export"]
    assert exports == [201], "the export is read again, not made again"


def test_an_export_from_before_the_last_import_is_not_used(verify, pipeline, sandbox):
    """A look was begun, then the cohort was imported again: what was exported is not what is held now."""
    pipeline.run(PEOPLE[:50])
    sandbox.faults(next=[{"endpoint": "segment-export-file", "status": 404}])  # it is not there yet
    with pytest.raises(TaskDeferred):
        verify(segment_id=SEGMENT, deferrable=True)
    pipeline.run(PEOPLE, context("night-2"))
    assert verify(segment_id=SEGMENT)["in_segment"] == 100


def test_a_key_without_the_permission(verify, pipeline, sandbox):
    pipeline.run(PEOPLE)
    sandbox.settings(permissions=["users.export.ids"])
    with pytest.raises(AirflowFailException, match=r"users\.export\.segment"):
        verify(segment_id=SEGMENT)
    assert verify()["unknown"] == 0


def test_people_held_by_device_are_not_checkable(verify, pipeline, sandbox):
    sandbox.add_users([{"device_ids": ["private-device-1"]}])
    pipeline.run(PEOPLE)
    add_by_hand(sandbox, device_ids=["private-device-1"])
    with pytest.raises(AirflowFailException, match="1 are surplus"):
        verify(segment_id=SEGMENT)
    ((finding, kind, value),) = findings(newest_verification(pipeline))
    assert (finding, kind) == ("surplus", "braze_id")
    assert value not in {"", "private-device-1"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tolerance": 5}, "tolerance must be a share"),
        ({"max_unknown_share": "many"}, "max_unknown_share must be a share"),
        ({"delivery": "attribute"}, "attribute is empty"),
        ({"segment_id": SEGMENT, "segment_name": "Cohort one"}, "either segment_id or segment_name"),
        ({"sample": "some"}, "sample must be"),
        ({"sample": 0}, "sample must be"),
        ({"max_lag": -1}, "max_lag must be a number of seconds"),
        ({"segment_id": "None"}, "either segment_id or segment_name"),
        ({"segment_id": ""}, "either segment_id or segment_name"),
    ],
)
def test_bad_arguments(verify, pipeline, arguments, says):
    pipeline.run(PEOPLE[:3])
    with pytest.raises(AirflowFailException, match=says):
        verify(**arguments)


def test_a_verification_says_what_it_found_for_the_overview(verify, pipeline):
    """Where it fails, too."""
    pipeline.run([*PEOPLE, "private-stranger-1"])
    verify(sample=50)
    assert glance(pipeline.ledger)["verified"]["checked"] == 50
    with pytest.raises(AirflowFailException):
        verify(segment_id=SEGMENT, max_unknown_share=0)
    assert glance(pipeline.ledger)["verified"]["checked"] == 101

"""The stand-in's partner cohorts, held against Braze's documentation: Partner cohort import."""

from __future__ import annotations

import pytest

from airflow_provider_heapbraze.sandbox import connections

SHAPE = "cohort_changes must be an array of objects"


def test_a_cohort_is_made_renamed_and_filled(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=3)

    assert caller.name().status_code == 201
    assert caller.name(name="Renamed").status_code == 201
    assert caller.add("user-0", "user-2").status_code == 201
    assert caller.change({"user_ids": ["user-2"], "should_remove": True}).status_code == 201

    cohort = heapbraze_sandbox.cohort("cohort-1")
    assert (cohort["name"], cohort["created_at"]) == ("Renamed", "2026-01-02T03:04:05.000Z")
    assert cohort["members"] == ["user-0"]
    assert cohort["size"] == 1


def test_every_kind_of_identifier_finds_its_user(caller, heapbraze_sandbox):
    alias = {"alias_name": "ann", "alias_label": "crm"}
    heapbraze_sandbox.add_users(
        [
            {"external_id": "known"},
            {"external_id": "aliased", "aliases": [alias]},
            {"aliases": [{"alias_name": "only", "alias_label": "crm"}]},
            {"device_ids": ["phone"]},
        ]
    )

    caller.change(
        {
            "user_ids": ["known"],
            "device_ids": ["phone"],
            "aliases": [alias, {"alias_name": "only", "alias_label": "crm"}],
        }
    )

    cohort = heapbraze_sandbox.cohort("cohort-1")
    assert cohort["members"] == ["alias:crm/only", "aliased", "device:phone", "known"]
    assert cohort["sent"] == {
        "external_id": ["known"],
        "alias": [["ann", "crm"], ["only", "crm"]],
        "device_id": ["phone"],
    }


def test_one_user_under_two_identifiers_is_one_member(caller, heapbraze_sandbox):
    alias = {"alias_name": "ann", "alias_label": "crm"}
    heapbraze_sandbox.add_users([{"external_id": "ann-1", "aliases": [alias]}])

    caller.change({"user_ids": ["ann-1"], "aliases": [alias]})
    assert heapbraze_sandbox.cohort("cohort-1")["size"] == 1

    caller.change({"aliases": [alias], "should_remove": True})
    cohort = heapbraze_sandbox.cohort("cohort-1")
    assert cohort["members"] == []
    assert cohort["sent"]["external_id"] == ["ann-1"]


def test_a_device_of_an_identified_user_moves_nobody(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users([{"external_id": "ann", "device_ids": ["phone"]}])

    assert caller.change({"device_ids": ["phone"]}).status_code == 201
    assert heapbraze_sandbox.cohort("cohort-1")["members"] == []

    caller.add("ann")
    assert caller.change({"device_ids": ["phone"], "should_remove": True}).status_code == 201
    assert heapbraze_sandbox.cohort("cohort-1")["members"] == ["ann"]
    assert heapbraze_sandbox.state()["ignored"] == {"device_of_identified": 2}


def test_an_anonymous_user_who_is_identified_is_no_longer_matched_by_device(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users([{"device_ids": ["phone"]}])
    caller.change({"device_ids": ["phone"]})

    heapbraze_sandbox.add_users([{"external_id": "ann", "device_ids": ["phone"]}])
    caller.change({"device_ids": ["phone"], "should_remove": True})

    assert heapbraze_sandbox.cohort("cohort-1")["members"] == ["ann"]
    assert heapbraze_sandbox.state()["users"] == {"total": 1, "identified": 1, "anonymous": 0}


def test_unknown_people_are_ignored_and_never_created(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=1)

    answer = caller.change(
        {
            "user_ids": ["user-0", "stranger"],
            "device_ids": ["stranger"],
            "aliases": [{"alias_name": "a", "alias_label": "b"}],
        }
    )

    assert answer.status_code == 201
    assert heapbraze_sandbox.cohort("cohort-1")["members"] == ["user-0"]
    state = heapbraze_sandbox.state()
    assert state["ignored"] == {"unknown": 3}
    assert state["users"]["total"] == 1
    assert state["cohorts"]["cohort-1"]["identifiers"] == {"external_id": 2, "alias": 1, "device_id": 1}


def test_removing_somebody_who_is_not_in_the_cohort_changes_nothing(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=2)
    caller.add("user-0")

    assert caller.change({"user_ids": ["user-1"], "should_remove": True}).status_code == 201
    assert heapbraze_sandbox.cohort("cohort-1")["members"] == ["user-0"]


@pytest.mark.parametrize("name", ["stranger", "user-0"])
def test_adding_and_removing_one_person_at_once_is_counted(caller, heapbraze_sandbox, name):
    heapbraze_sandbox.add_users(count=2)

    caller.change({"user_ids": [name, "user-1"]}, {"user_ids": [name], "should_remove": True})

    assert heapbraze_sandbox.state()["conflicts"] == 1


def test_a_conflict_is_seen_through_two_identifiers(caller, heapbraze_sandbox):
    alias = {"alias_name": "ann", "alias_label": "crm"}
    heapbraze_sandbox.add_users([{"external_id": "ann-1", "aliases": [alias]}])

    caller.change({"user_ids": ["ann-1"]}, {"aliases": [alias], "should_remove": True})

    assert heapbraze_sandbox.state()["conflicts"] == 1


def test_an_empty_list_of_changes_checks_the_keys_and_changes_nothing(caller, heapbraze_sandbox):
    assert caller.change().status_code == 201
    assert caller.change(client_secret="not-the-secret").status_code == 401
    assert heapbraze_sandbox.state()["cohorts"] == {}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"partner_api_key": "not-the-partner-key"}, "Invalid Partner API key"),
        ({"client_secret": "not-the-secret"}, "Invalid client secret"),
        ({"client_secret": ...}, "Unauthorized access"),
        ({"partner_api_key": ...}, "Unauthorized access"),
        (
            {"partner": "other"},
            f"Partner not enabled for client with client secret: {connections.DATA_IMPORT_KEY}",
        ),
    ],
)
def test_wrong_keys_are_refused_in_brazes_words(caller, request_, says):
    for answer in (caller.name(**request_), caller.change(**request_)):
        assert (answer.status_code, answer.json()) == (401, {"message": says})


@pytest.mark.parametrize(
    "agent", ["python-requests/2.32", "partner-heap-Test/1.0", "partner-Heap/1.0", "partner-Heap-Test", ""]
)
def test_a_partner_has_to_name_itself(caller, agent):
    answer = caller.change(agent=agent)
    assert answer.status_code == 400
    assert "User-Agent" in answer.json()["message"]


@pytest.mark.parametrize("cohort_id", [..., None, "", 7, ["c"]])
def test_a_cohort_id_is_a_string(caller, cohort_id):
    for answer in (caller.name(cohort_id=cohort_id), caller.change(cohort_id=cohort_id)):
        assert (answer.status_code, answer.json()["message"]) == (400, "cohort_id must be a valid string")


@pytest.mark.parametrize("name", [..., None, "", 7])
def test_a_name_is_a_non_empty_string(caller, name):
    answer = caller.name(name=name)
    assert (answer.status_code, answer.json()["message"]) == (400, "name must be a non-empty string")


@pytest.mark.parametrize(
    "time", [..., None, 1_700_000_000, "", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01 00:00"]
)
def test_created_at_is_iso_8601(caller, heapbraze_sandbox, time):
    answer = caller.name(created_at=time)
    assert (answer.status_code, answer.json()["message"]) == (400, "created_at must be a valid ISO 8601 time")
    assert heapbraze_sandbox.state()["cohorts"] == {}


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123+02:00"])
def test_iso_times_are_taken(caller, time):
    assert caller.name(created_at=time).status_code == 201


@pytest.mark.parametrize(
    "changes",
    [
        ...,
        None,
        {},
        ["user"],
        [{}],
        [{"should_remove": True}],
        [{"user_ids": "user"}],
        [{"user_ids": [1]}],
        [{"user_ids": [None]}],
        [{"device_ids": [1]}],
        [{"device_ids": None}],
        [{"aliases": {}}],
        [{"aliases": ["ann"]}],
        [{"aliases": [{"alias_name": "ann"}]}],
        [{"aliases": [{"alias_name": "ann", "alias_label": 1}]}],
    ],
)
def test_changes_of_the_wrong_shape_are_refused(caller, heapbraze_sandbox, changes):
    answer = caller.change(cohort_changes=changes)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(SHAPE)
    assert heapbraze_sandbox.state()["cohorts"] == {}


def test_should_remove_is_a_boolean(caller):
    assert caller.change({"user_ids": ["user"], "should_remove": "yes"}).status_code == 400
    assert caller.change({"user_ids": ["user"], "should_remove": False}).status_code == 201


def test_a_request_has_at_most_1000_ids_in_all(caller, heapbraze_sandbox):
    ids = [f"id-{n}" for n in range(998)]
    alias = {"alias_name": "ann", "alias_label": "crm"}
    full = {"user_ids": ids, "device_ids": ["phone"], "aliases": [alias]}

    assert caller.change(full).status_code == 201
    answer = caller.change(full, {"user_ids": ["one-more"], "should_remove": True})

    assert answer.status_code == 400
    assert "1,000" in answer.json()["message"]
    assert heapbraze_sandbox.state()["cohorts"]["cohort-1"]["identifiers"]["external_id"] == 998


@pytest.mark.parametrize(("external_id", "status"), [("x" * 987, 201), ("x" * 988, 400), ("é" * 494, 400)])
def test_an_external_id_has_at_most_987_bytes(caller, external_id, status):
    assert caller.add(external_id).status_code == status


def test_a_body_over_4_mb_is_refused(caller):
    assert caller.change(padding="x" * 3_900_000).status_code == 201
    assert caller.change(padding="x" * 4_000_000).status_code == 413


@pytest.mark.parametrize("body", ["", "{", "[]", '{"cohort_id": NaN}', "[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(caller, body):
    answer = caller.session.post(
        f"{caller.url}/partners/heap/cohorts/users",
        data=body,
        headers={"User-Agent": "partner-Heap-Test/1.0"},
        timeout=10,
    )
    assert answer.status_code == 400

"""The stand-in's ``/users/track`` and segment reads, held against Braze's REST documentation."""

from __future__ import annotations

import pytest


def existing(external_id: str, **attributes):
    return {"external_id": external_id, "_update_existing_only": True, **attributes}


def test_attributes_are_written_for_users_who_exist(caller, heapbraze_sandbox):
    alias = {"alias_name": "ann", "alias_label": "crm"}
    heapbraze_sandbox.add_users([{"external_id": "a"}, {"external_id": "b", "aliases": [alias]}])

    answer = caller.track(
        existing("a", vip=True),
        {"user_alias": alias, "_update_existing_only": True, "vip": False},
        existing("stranger", vip=True),
    )

    assert (answer.status_code, answer.json()) == (201, {"message": "success", "attributes_processed": 3})
    assert heapbraze_sandbox.attribute("vip") == {"name": "vip", "true": ["a"], "false": ["b"], "other": 0}
    state = heapbraze_sandbox.state()
    assert (state["created_users"], state["ignored"]) == (0, {"unknown": 1})
    assert state["attributes"] == {"vip": {"true": 1, "false": 1, "other": 0}}


@pytest.mark.parametrize(
    "person", [{"external_id": "new"}, {"user_alias": {"alias_name": "new", "alias_label": "crm"}}]
)
@pytest.mark.parametrize("flag", [{}, {"_update_existing_only": False}, {"_update_existing_only": "true"}])
def test_without_update_existing_only_an_unknown_user_is_created(caller, heapbraze_sandbox, person, flag):
    caller.track({**person, **flag, "vip": True})

    state = heapbraze_sandbox.state()
    assert (state["created_users"], state["users"]["total"]) == (1, 1)
    assert len(heapbraze_sandbox.attribute("vip")["true"]) == 1


def test_a_row_that_is_refused_does_not_stop_the_others(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=2)

    answer = caller.track(
        existing("user-0", vip=True), existing("x" * 988, vip=True), existing("user-1", vip=True)
    )

    assert answer.status_code == 201
    assert answer.json() == {
        "message": "success",
        "attributes_processed": 2,
        "errors": [
            {"type": "'external_id' must be fewer than 988 bytes", "input_array": "attributes", "index": 1}
        ],
    }
    assert heapbraze_sandbox.attribute("vip")["true"] == ["user-0", "user-1"]


@pytest.mark.parametrize(
    "row",
    [
        "user-0",
        {"vip": True},
        {"external_id": 7, "vip": True},
        {"external_id": "", "vip": True},
        {"external_id": True},
        {"external_id": "user-0", "braze_id": True},
        {"external_id": "user-0", "user_alias": {"alias_name": "a", "alias_label": "b"}, "vip": True},
        {"user_alias": "ann", "vip": True},
        {"user_alias": {"alias_name": "ann"}, "vip": True},
        {"external_id": "user-0", "": True},
        {"external_id": "user-0", "v" * 256: True},
        {"external_id": "user-0", "is-vip": True},
        {"external_id": "user-0", "ist größer": True},
        {"external_id": "user-0", "email": True},
        {"external_id": "user-0", "time_zone": True},
        {"external_id": "user-0", "app_id": True},
    ],
)
def test_a_bad_row_is_reported(caller, heapbraze_sandbox, row):
    heapbraze_sandbox.add_users(count=1)

    answer = caller.track(row).json()

    assert answer["attributes_processed"] == 0
    assert [(error["input_array"], error["index"]) for error in answer["errors"]] == [("attributes", 0)]
    state = heapbraze_sandbox.state()
    assert (state["attributes"], state["created_users"]) == ({}, 0)


def test_attribute_names_of_255_characters_and_profile_texts_are_taken(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=1)
    assert "errors" not in caller.track(existing("user-0", **{"v" * 255: True}, email="a@example.com")).json()


def test_null_unsets_and_arrays_are_changed_in_place(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=1)

    caller.track(existing("user-0", vip=True, tags={"add": ["a", "b", "a"]}))
    assert heapbraze_sandbox.state()["attributes"]["tags"]["other"] == 1
    caller.track(existing("user-0", vip=None, tags={"remove": ["a"]}))

    assert heapbraze_sandbox.attribute("vip")["true"] == []
    assert heapbraze_sandbox.state()["attributes"]["vip"] == {"true": 0, "false": 0, "other": 0}


def test_a_request_has_at_most_75_objects_in_all_arrays_together(caller, heapbraze_sandbox):
    rows = [existing(f"user-{n}", vip=True) for n in range(75)]

    assert caller.track(*rows).status_code == 201
    for answer in (caller.track(*rows, existing("user-75", vip=True)), caller.track(*rows, events=[{}])):
        assert (answer.status_code, answer.json()) == (400, {"message": "Max Input Length Exceeded"})

    heapbraze_sandbox.settings(attributes_per_request=50)
    assert caller.track(*rows[:50]).status_code == 201
    assert caller.track(*rows[:51]).status_code == 400


def test_other_identifiers_are_taken_and_find_nobody(caller, heapbraze_sandbox):
    rows = [
        {name: "x", "_update_existing_only": True, "vip": True} for name in ("braze_id", "email", "phone")
    ]
    assert caller.track(*rows).json() == {"message": "success", "attributes_processed": 3}
    assert heapbraze_sandbox.requests()[-1]["ids"] == {"set": {"braze_id": 1, "email": 1, "phone": 1}}
    assert heapbraze_sandbox.state()["attributes"] == {}


@pytest.mark.parametrize("body", [{}, {"attributes": "x"}, {"attributes": {}}, {"events": [{}]}, []])
def test_a_body_without_attributes_is_refused(caller, body):
    answer = caller.post("/users/track", body, Authorization="Bearer sandbox-rest-api-key")
    assert answer.status_code == 400


def test_a_body_over_4_mb_is_refused(caller):
    assert caller.track(existing("a", note="x" * 4_000_000)).status_code == 413


def test_a_wrong_key_is_401_and_a_key_without_the_permission_403(caller, heapbraze_sandbox):
    row = existing("a", vip=True)
    assert caller.track(row, key="not-the-rest-key").status_code == 401
    assert caller.post("/users/track", {"attributes": [row]}).status_code == 401
    assert caller.get("/segments/list", key="not-the-rest-key").status_code == 401

    heapbraze_sandbox.settings(permissions=["segments.list"])

    assert caller.track(row).status_code == 403
    assert caller.get("/segments/details?segment_id=x").status_code == 403
    assert caller.get("/segments/list").status_code == 200


def test_segments_come_in_pages_of_100(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_segments([{"id": f"s-{n}", "name": f"Segment {n}"} for n in range(101)])

    first, second, third = (caller.get(f"/segments/list?page={n}").json() for n in range(3))

    assert first["message"] == "success"
    assert [len(page["segments"]) for page in (first, second, third)] == [100, 1, 0]
    assert second["segments"] == [
        {"id": "s-100", "name": "Segment 100", "analytics_tracking_enabled": False, "tags": []}
    ]
    newest = caller.get("/segments/list?sort_direction=desc").json()["segments"][0]
    assert newest["id"] == "s-100"


@pytest.mark.parametrize("query", ["page=-1", "page=x", "sort_direction=up"])
def test_a_bad_page_is_refused(caller, query):
    assert caller.get(f"/segments/list?{query}").status_code == 400


def test_segment_details(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_segments([{"id": "s", "name": "Power users", "tags": ["heap"]}])

    details = caller.get("/segments/details?segment_id=s").json()

    assert (details["message"], details["name"], details["tags"]) == ("success", "Power users", ["heap"])
    assert caller.get("/segments/details?segment_id=other").status_code == 400
    assert caller.get("/segments/details").status_code == 400

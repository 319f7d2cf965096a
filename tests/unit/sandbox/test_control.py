"""The control API: seeds, settings, reset, and a log that tells nothing about anybody."""

from __future__ import annotations

import json
import time

import pytest


def test_a_reset_forgets_everything(caller, heapbraze_sandbox):
    empty = heapbraze_sandbox.state()
    heapbraze_sandbox.add_users(count=2)
    heapbraze_sandbox.add_segments([{"id": "s", "name": "S"}])
    heapbraze_sandbox.settings(rest_api_key="another-rest-key", limits={"pool": {"limit": 1, "seconds": 1e9}})
    heapbraze_sandbox.faults(next=[{"count": 99, "status": 500}])
    caller.add("user-0")
    assert heapbraze_sandbox.state() != empty

    heapbraze_sandbox.reset()

    assert heapbraze_sandbox.state() == empty
    assert heapbraze_sandbox.requests() == []
    assert [caller.get("/segments/list").status_code for _ in range(2)] == [200, 200]


def test_numbered_users_have_what_was_asked_for(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(
        count=2, first=5, prefix="u", alias_label="crm", alias_prefix="a", device_prefix="d"
    )
    heapbraze_sandbox.add_users(count=3, prefix=None, device_prefix="anonymous-")

    assert heapbraze_sandbox.state()["users"] == {"total": 5, "identified": 2, "anonymous": 3}
    caller.change(
        {
            "user_ids": ["u5"],
            "aliases": [{"alias_name": "a6", "alias_label": "crm"}],
            "device_ids": ["d5", "anonymous-2"],
        }
    )
    assert heapbraze_sandbox.cohort("cohort-1")["members"] == ["device:anonymous-2", "u5", "u6"]


def test_200_000_users_are_there_in_a_moment(heapbraze_sandbox):
    start = time.process_time()  # the server's thread is in it, what else the machine does is not
    assert heapbraze_sandbox.add_users(count=200_000)["total"] == 200_000
    assert time.process_time() - start < 2


def test_adding_a_user_again_adds_what_is_new(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users([{"external_id": "ann"}, {"device_ids": ["phone"]}])
    heapbraze_sandbox.add_users(
        [
            {"external_id": "ann", "aliases": [{"alias_name": "a", "alias_label": "crm"}]},
            {"device_ids": ["phone", "tablet"]},
        ]
    )
    assert heapbraze_sandbox.state()["users"]["total"] == 2
    caller.change({"aliases": [{"alias_name": "a", "alias_label": "crm"}], "device_ids": ["tablet"]})
    assert heapbraze_sandbox.cohort("cohort-1")["members"] == ["ann", "device:phone"]


@pytest.mark.parametrize(
    "user",
    [
        {},
        {"external_id": "a", "identified": False},
        {"external_id": "b", "aliases": [{"alias_name": "a", "alias_label": "crm"}]},
    ],
)
def test_impossible_users_are_refused(heapbraze_sandbox, user):
    heapbraze_sandbox.add_users(
        [{"external_id": "a", "aliases": [{"alias_name": "a", "alias_label": "crm"}]}]
    )
    with pytest.raises(ValueError, match=r"409|422"):
        heapbraze_sandbox.add_users([user])


def test_numbered_users_need_to_be_known_by_something(heapbraze_sandbox):
    with pytest.raises(ValueError, match="422"):
        heapbraze_sandbox.add_users(count=1, prefix=None)


def test_settings_change_only_what_is_named(caller, heapbraze_sandbox):
    heapbraze_sandbox.settings(partner_name="amplitude", limits={"pool": {"limit": 7, "seconds": 60}})
    assert caller.change().status_code == 401
    assert caller.change(partner="amplitude").status_code == 201
    assert caller.get("/segments/list").headers["X-RateLimit-Limit"] == "7"
    assert caller.change(partner="amplitude").headers["X-RateLimit-Limit"] == "250000"

    heapbraze_sandbox.settings(data_import_key="another-data-import-key")
    assert caller.change(partner="amplitude").json()["message"] == "Invalid client secret"
    assert caller.change(partner="amplitude", client_secret="another-data-import-key").status_code == 201


def test_an_unknown_cohort_is_404_and_an_unknown_attribute_is_empty(caller, heapbraze_sandbox):
    with pytest.raises(ValueError, match="404"):
        heapbraze_sandbox.cohort("nobody")
    assert heapbraze_sandbox.attribute("nothing") == {"name": "nothing", "true": [], "false": [], "other": 0}


def test_a_cohort_id_may_hold_anything(caller, heapbraze_sandbox):
    caller.cohort_id = "heap/cohort 1?ä#%"
    caller.name()
    assert heapbraze_sandbox.cohort("heap/cohort 1?ä#%")["cohort_id"] == "heap/cohort 1?ä#%"


def test_the_log_counts_identifiers_and_holds_none(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=5)
    before = time.time()
    caller.name()
    caller.change(
        {"user_ids": ["user-0", "user-1"], "device_ids": ["phone-1"]},
        {
            "user_ids": ["user-2"],
            "aliases": [{"alias_name": "ann", "alias_label": "crm"}],
            "should_remove": True,
        },
    )
    caller.track({"external_id": "user-3", "_update_existing_only": True, "vip": True})
    caller.heap("/api/track", events=[{"identity": "user-4", "event": "Opened"}])
    caller.get("/segments/list?page=0")

    log = heapbraze_sandbox.requests()

    assert [entry["sequence"] for entry in log] == [1, 2, 3, 4, 5]
    assert [(entry["method"], entry["path"], entry["status"]) for entry in log] == [
        ("POST", "/partners/{partner}/cohorts", 201),
        ("POST", "/partners/{partner}/cohorts/users", 201),
        ("POST", "/users/track", 201),
        ("POST", "/api/track", 204),
        ("GET", "/segments/list", 200),
    ]
    assert [entry["ids"] for entry in log] == [
        {},
        {"add": {"external_id": 2, "device_id": 1}, "remove": {"external_id": 1, "alias": 1}},
        {"set": {"external_id": 1}},
        {"set": {"identity": 1}},
        {},
    ]
    assert all(before <= entry["time"] <= time.time() and entry["seconds"] >= 0 for entry in log)
    text = json.dumps(log)
    for secret in ("user-", "phone-1", "ann", "crm", "sandbox-", "cohort-1", "Power users"):
        assert secret not in text


def test_the_log_is_read_on_from_where_one_was(caller, heapbraze_sandbox):
    for _ in range(3):
        caller.change()
    assert [entry["sequence"] for entry in heapbraze_sandbox.requests(since=1)] == [2, 3]


def test_a_repeat_has_the_same_hash(caller, heapbraze_sandbox):
    caller.add("user-0")
    caller.add("user-0")
    caller.add("user-1")
    first, second, third = (entry["body_sha256"] for entry in heapbraze_sandbox.requests())
    assert first == second != third


def test_refused_requests_are_logged_too(caller, heapbraze_sandbox):
    caller.change(client_secret="not-the-secret")
    caller.change("wrong")
    assert [(entry["status"], entry["applied"]) for entry in heapbraze_sandbox.requests()] == [
        (401, False),
        (400, False),
    ]
    assert heapbraze_sandbox.state()["requests"] == {"cohort-users": {"401": 1, "400": 1}}


def test_the_front_page_answers_whoever_only_looks(caller):
    assert caller.session.get(caller.url, timeout=10).status_code == 200
    assert caller.session.head(caller.url, timeout=10).status_code == 200

"""The stand-in's other reads of Braze: single users, sizes of segments; and how reads lag behind writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from airflow_provider_heapbraze.sandbox.people import User
from airflow_provider_heapbraze.sandbox.reading import Journal
from tests.unit.sandbox.exported import exported, names, until

LONG = 3600  # seconds: no test sees the end of it
ALIAS = {"alias_name": "ann", "alias_label": "crm"}
NOBODY = {"alias_name": "nobody", "alias_label": "crm"}


def test_users_are_shown_by_external_id_and_alias(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users([{"external_id": "a"}, {"external_id": "b", "aliases": [ALIAS]}])

    answer = caller.people(
        external_ids=["stranger", "a", "b"],
        user_aliases=[ALIAS, NOBODY],
        fields_to_export=["external_id", "user_aliases"],
    )

    assert (answer.status_code, answer.json()) == (
        201,
        {
            "message": "success",
            "users": [{"external_id": "a"}, {"external_id": "b", "user_aliases": [ALIAS]}],
            "invalid_user_ids": ["stranger"],
        },
    )
    assert heapbraze_sandbox.requests()[-1]["ids"] == {"get": {"external_id": 3, "alias": 2}}


def test_a_device_and_an_email_address_find_users(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users([{"external_id": "a", "device_ids": ["phone"]}, {"external_id": "b"}])
    caller.track({"external_id": "b", "email": "b@example.com"})

    def found(**body) -> list:
        return caller.people(fields_to_export=["external_id"], **body).json()["users"]

    assert found(device_id="phone") == [{"external_id": "a"}]
    assert found(email_address="b@example.com") == [{"external_id": "b"}]
    assert found(device_id="tablet", email_address="c@example.com") == []


def test_without_fields_everything_is_shown(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users([{"external_id": "a", "device_ids": ["phone"]}])
    caller.track({"external_id": "a", "vip": True, "email": "a@example.com"})

    (shown,) = caller.people(external_ids=["a"]).json()["users"]

    assert shown.keys() == {"external_id", "braze_id", "custom_attributes", "devices", "email"}
    assert shown["custom_attributes"] == {"vip": True}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"external_ids": [], "user_aliases": []},
        {"external_ids": "a"},
        {"external_ids": [1]},
        {"user_aliases": ALIAS},
        {"user_aliases": ["a"]},
        {"user_aliases": [{"alias_name": "a"}]},
        {"device_id": ["phone"]},
        {"email_address": 1},
        {"external_ids": ["a"], "fields_to_export": "external_id"},
        {"external_ids": ["a"] * 51},
        {"external_ids": ["a"] * 50, "user_aliases": [ALIAS]},
    ],
)
def test_a_bad_request_for_users_is_refused(caller, body):
    assert caller.people(**body).status_code == 400


def test_50_users_may_be_asked_for(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=49)
    ids = [f"user-{n}" for n in range(49)]
    assert len(caller.people(external_ids=ids, user_aliases=[ALIAS]).json()["users"]) == 49


def test_keys_permissions_and_limits(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_segments([{"id": "s", "name": "S"}])
    series = "/segments/data_series?segment_id=s&length=1"
    heapbraze_sandbox.settings(limits={"ids": {"limit": 1, "seconds": 1e9}})
    assert caller.people(key="not-the-rest-key", external_ids=["a"]).status_code == 401
    assert caller.get(series, key="not-the-rest-key").status_code == 401
    assert [caller.people(external_ids=["a"]).status_code for _ in range(2)] == [201, 429]
    assert heapbraze_sandbox.state()["limits_broken"] == {"ids": 1}
    assert caller.get(series).headers["X-RateLimit-Limit"] == "250000"

    heapbraze_sandbox.settings(permissions=["users.export.segment"])
    assert caller.people(external_ids=["a"]).status_code == 403
    assert caller.get(series).status_code == 403


def test_faults_meet_these_reads(caller, heapbraze_sandbox):
    heapbraze_sandbox.faults(endpoints=["users-export-ids", "segments-data-series"], rates={"5xx-before": 1})
    assert caller.people(external_ids=["a"]).status_code >= 500
    heapbraze_sandbox.add_segments([{"id": "s", "name": "S"}])
    assert caller.get("/segments/data_series?segment_id=s&length=1").status_code >= 500
    assert caller.get("/segments/list").status_code == 200


@pytest.fixture
def series(caller, heapbraze_sandbox):
    heapbraze_sandbox.add_users(count=4)
    heapbraze_sandbox.add_segments([{"id": "s", "name": "S", "cohort_id": "cohort-1", "sizes": [1, 2, 3]}])
    caller.add("user-0", "user-1", "user-2", "user-3")

    def ask(length: object = 100, **query: str):
        more = "".join(f"&{name}={quote(value)}" for name, value in query.items())
        return caller.get(f"/segments/data_series?segment_id=s&length={length}{more}")

    return ask


def days(answer) -> list[datetime]:
    return [datetime.fromisoformat(point["time"]) for point in answer.json()["data"]]


def test_a_series_ends_with_the_size_of_today(series):
    before = datetime.now(UTC).date()
    answer = series()
    after = datetime.now(UTC).date()

    assert answer.json()["message"] == "success"
    assert [point["size"] for point in answer.json()["data"]] == [1, 2, 3, 4]
    assert days(answer)[-1].date() in {before, after}
    assert all(point["time"].endswith("T00:00:00.000Z") for point in answer.json()["data"])
    first, *_, last = days(answer)
    assert last - first == timedelta(days=3)


def test_a_series_has_as_many_days_as_were_asked_for(series):
    assert [point["size"] for point in series(2).json()["data"]] == [3, 4]
    assert [point["size"] for point in series(1).json()["data"]] == [4]


def test_a_series_may_end_earlier(series):
    whole = days(series())

    def sizes(moment: datetime, length: int = 2) -> list[int]:
        return [point["size"] for point in series(length, ending_at=moment.isoformat()).json()["data"]]

    assert sizes(whole[1]) == [1, 2]
    assert sizes(whole[1].replace(tzinfo=None)) == [1, 2]
    assert sizes(whole[0] - timedelta(days=1)) == []
    assert sizes(whole[-1] + timedelta(days=9)) == [3, 4]


@pytest.mark.parametrize("length", ["", "0", "101", "x", "-1", "1.5"])
def test_a_bad_length_is_refused(series, length):
    assert series(length).status_code == 400


def test_a_bad_time_and_a_bad_segment_are_refused(caller, series):
    assert series(ending_at="yesterday").status_code == 400
    assert series(ending_at="0001-01-01T00:00:00+14:00").status_code == 400
    for query in ("segment_id=missing&length=1", "length=1"):
        assert caller.get(f"/segments/data_series?{query}").status_code == 400
    assert caller.get("/segments/data_series?segment_id=s").status_code == 400


def attributes(caller, external_id) -> dict:
    answer = caller.people(external_ids=[external_id], fields_to_export=["custom_attributes"])
    return answer.json()["users"][0].get("custom_attributes", {})


@pytest.fixture
def lagging(caller, heapbraze_sandbox):
    """A cohort of user-0 and user-1; user-0 is a VIP; reads lag from then on."""
    heapbraze_sandbox.add_users(count=3)
    heapbraze_sandbox.add_segments(
        [
            {"id": "s", "name": "S", "cohort_id": "cohort-1"},
            {"id": "vip", "name": "VIPs", "attribute": "vip"},
            {"id": "new", "name": "New", "cohort_id": "cohort-2"},
        ]
    )
    caller.add("user-0", "user-1")
    caller.track({"external_id": "user-0", "vip": True})
    heapbraze_sandbox.settings(read_lag=LONG)
    return heapbraze_sandbox


def test_reads_lag_behind_writes(caller, lagging):
    caller.change({"user_ids": ["user-0"], "should_remove": True}, {"user_ids": ["user-1", "user-2"]})
    caller.change({"user_ids": ["user-0"]}, cohort_id="cohort-2")
    for vip in (False, None):
        caller.track({"external_id": "user-0", "vip": vip}, {"external_id": "user-1", "vip": True, "old": 1})

    assert names(exported(caller, "s")) == ["user-0", "user-1"]
    assert names(exported(caller, "vip")) == ["user-0"]
    assert exported(caller, "new") == []
    assert [attributes(caller, f"user-{n}") for n in range(2)] == [{"vip": True}, {}]
    assert lagging.segment("s")["members"] == ["user-1", "user-2"]
    assert lagging.segment("vip")["members"] == ["user-1"]

    lagging.settings(read_lag=0)

    assert names(exported(caller, "s")) == ["user-1", "user-2"]
    assert names(exported(caller, "new")) == ["user-0"]
    assert [attributes(caller, f"user-{n}") for n in range(2)] == [{}, {"vip": True, "old": 1}]


def test_reads_catch_up(caller, lagging):
    lagging.settings(read_lag=0.2)
    caller.add("user-2")
    caller.track({"external_id": "user-0", "vip": None})
    until(lambda: names(exported(caller, "s")) == ["user-0", "user-1", "user-2"])
    until(lambda: attributes(caller, "user-0") == {})


def test_users_exist_at_once(caller, lagging):
    caller.track({"external_id": "fresh", "vip": True})
    answer = caller.people(external_ids=["fresh"], fields_to_export=["external_id", "custom_attributes"])
    assert answer.json()["users"] == [{"external_id": "fresh"}]


def test_a_journal_knows_what_was_true_and_forgets_what_is_old():
    now = [100.0]
    ann, bob = User("ann"), User("bob")
    cohort, vip = ("cohort", "c"), ("attribute", "vip")
    journal = Journal(now=lambda: now[0])
    journal.note(cohort, [(ann, False)])
    assert journal.before() == {}

    journal.keep(10)
    journal.note(cohort, [(ann, True), (bob, False)])
    now[0] = 105.0
    journal.note(cohort, [(ann, False)])
    journal.note(vip, [(ann, None)])

    assert journal.before() == {cohort: {ann: True, bob: False}, vip: {ann: None}}
    now[0] = 110.0
    assert journal.before() == {cohort: {ann: False}, vip: {ann: None}}
    now[0] = 115.0
    assert journal.before() == {}

    journal.note(vip, [(bob, 1)])
    journal.keep(0)
    journal.keep(10)
    assert journal.before() == {}

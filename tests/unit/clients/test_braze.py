"""What the Braze client puts on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from airflow_provider_heapbraze import __version__
from airflow_provider_heapbraze.clients.braze import BrazeClient, BrazeKeys, BrazeLimits, CohortChange, Limit
from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
from airflow_provider_heapbraze.clients.errors import AuthenticationError, ConfigurationError

KEYS = BrazeKeys("rest-key-abcdef", "heap", "partner-key-abcdef", "import-key-abcdef")
PARTNER = {"partner_api_key": "partner-key-abcdef", "client_secret": "import-key-abcdef"}
ADDS = CohortChange(["anna", "ben"], ["device-1"], [("cleo", "crm")], should_remove=False)
REMOVES = CohortChange(["dora"], [], [], should_remove=True)
ADDS_ON_THE_WIRE = {
    "user_ids": ["anna", "ben"],
    "device_ids": ["device-1"],
    "aliases": [{"alias_name": "cleo", "alias_label": "crm"}],
}
REMOVES_ON_THE_WIRE = {"user_ids": ["dora"], "device_ids": [], "aliases": [], "should_remove": True}


@pytest.fixture
def client(make_transport, clock):
    return BrazeClient(make_transport(), KEYS, clock=clock)


@pytest.mark.parametrize(
    ("at", "sent"),
    [
        (datetime(2026, 3, 1, 10, 0, tzinfo=UTC), "2026-03-01T10:00:00.000Z"),
        (datetime(2026, 3, 1, 10, 0, 0, 987654, tzinfo=UTC), "2026-03-01T10:00:00.987Z"),
        (datetime(2026, 3, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))), "2026-02-28T23:00:00.000Z"),
    ],
)
def test_naming_a_cohort(server, client, at, sent):
    client.name_cohort("spring-buyers", "Spring buyers", at)
    assert (server.only.method, server.only.path) == ("POST", "/partners/heap/cohorts")
    assert server.only.body == {
        **PARTNER,
        "cohort_id": "spring-buyers",
        "name": "Spring buyers",
        "created_at": sent,
    }


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ([ADDS], [ADDS_ON_THE_WIRE]),
        ([REMOVES], [REMOVES_ON_THE_WIRE]),
        ([ADDS, REMOVES], [ADDS_ON_THE_WIRE, REMOVES_ON_THE_WIRE]),
        ([REMOVES, ADDS], [ADDS_ON_THE_WIRE, REMOVES_ON_THE_WIRE]),
        ([CohortChange([], [], [], should_remove=False), REMOVES], [REMOVES_ON_THE_WIRE]),
        ([ADDS, CohortChange([], [], [], should_remove=True)], [ADDS_ON_THE_WIRE]),
    ],
)
def test_changing_a_cohort(server, client, changes, sent):
    client.change_cohort("spring-buyers", changes)
    assert (server.only.method, server.only.path) == ("POST", "/partners/heap/cohorts/users")
    assert server.only.body == {**PARTNER, "cohort_id": "spring-buyers", "cohort_changes": sent}


@pytest.mark.parametrize("changes", [[], [CohortChange([], [], [], should_remove=True)]])
def test_no_change_is_no_request(server, client, changes):
    client.change_cohort("spring-buyers", changes)
    assert server.recorded == []


def test_identifiers_arrive_as_they_are(server, client):
    people = ["Ünïcode", " spaces ", "emoji 🦉", 'quote"s', "back\\slash", "tab\t", "\ud800 half a pair"]
    client.change_cohort("c", [CohortChange(people, [], [], should_remove=False)])
    assert server.only.body["cohort_changes"][0]["user_ids"] == people


@pytest.mark.parametrize(
    ("partner_name", "organisation"),
    [("heap", "Heap"), ("heap-labs", "HeapLabs"), ("myCDP_v2", "MyCDPV2"), ("x.y~z", "XYZ")],
)
def test_partner_endpoints_get_the_user_agent_that_braze_requires(
    server, make_transport, partner_name, organisation
):
    keys = BrazeKeys(None, partner_name, "partner-key-abcdef", "import-key-abcdef")
    BrazeClient(make_transport(), keys).change_cohort("c", [ADDS])
    assert server.only.path == f"/partners/{partner_name}/cohorts/users"
    assert server.only.headers["User-Agent"] == f"partner-{organisation}-AirflowProvider/{__version__}"


def test_the_user_agent_of_partner_endpoints_can_be_set(server, make_transport):
    client = BrazeClient(make_transport(), KEYS, partner_user_agent="partner-Acme-Sync/1")
    client.change_cohort("c", [ADDS])
    client.check_rest_key()
    assert server.recorded[0].headers["User-Agent"] == "partner-Acme-Sync/1"
    assert server.recorded[1].headers["User-Agent"] == f"airflow-provider-heapbraze/{__version__}"


def test_setting_attributes_creates_nobody(server, client):
    people = [
        {"external_id": "anna", "in_spring": True},
        {"user_alias": {"alias_name": "cleo", "alias_label": "crm"}, "in_spring": False},
    ]
    client.set_attributes(people)
    assert (server.only.method, server.only.path) == ("POST", "/users/track")
    assert server.only.headers["Authorization"] == "Bearer rest-key-abcdef"
    assert server.only.body == {"attributes": [{**one, "_update_existing_only": True} for one in people]}


def test_the_test_of_the_partner_keys_changes_nobody(server, client):
    client.check_partner_keys()
    assert server.only.path == "/partners/heap/cohorts/users"
    assert server.only.body == {**PARTNER, "cohort_id": "connection-test", "cohort_changes": []}


@pytest.mark.parametrize("status", [200, 201, 400])
def test_any_answer_about_the_empty_list_proves_the_partner_keys(server, client, reply, status):
    server.script(reply(status, {"message": "cohort_changes must be an array"}))
    client.check_partner_keys()


def test_a_refused_partner_key_fails_the_test(server, client, reply):
    server.script(reply(401, {"message": "Invalid client secret"}))
    with pytest.raises(AuthenticationError, match="data_import_key"):
        client.check_partner_keys()


@pytest.mark.parametrize(("status", "may_list"), [(200, True), (403, False)])
def test_the_test_of_the_rest_key_only_reads(server, client, reply, status, may_list):
    server.script(reply(status, {"message": "success", "segments": []}))
    assert client.check_rest_key() is may_list
    assert (server.only.method, server.only.path) == ("GET", "/segments/list?page=0")
    assert server.only.headers["Authorization"] == "Bearer rest-key-abcdef"
    assert server.only.content == b""


def test_a_refused_rest_key_fails_the_test(server, client, reply):
    server.script(reply(401))
    with pytest.raises(AuthenticationError, match="wrong instance looks the same"):
        client.check_rest_key()


@pytest.mark.parametrize(
    "given", [{}, {"partner_api_key": "partner-key-abcdef"}, {"data_import_key": "import-k"}]
)
def test_cohorts_need_both_partner_keys(server, make_transport, given):
    client = BrazeClient(make_transport(), BrazeKeys("rest-key-abcdef", **given))
    for call in (
        lambda: client.name_cohort("c", "n", datetime.now(UTC)),
        lambda: client.change_cohort("c", [ADDS]),
        client.check_partner_keys,
    ):
        with pytest.raises(ConfigurationError, match="partner_api_key and data_import_key"):
            call()
    assert server.recorded == []


def test_rest_endpoints_need_the_rest_key(server, make_transport):
    client = BrazeClient(make_transport(), BrazeKeys(None, "heap", "partner-key-abcdef", "import-key-abcdef"))
    for call in (lambda: client.set_attributes([{"external_id": "anna"}]), client.check_rest_key):
        with pytest.raises(ConfigurationError, match="REST API key"):
            call()
    assert server.recorded == []


def test_each_kind_of_call_has_the_budget_of_its_endpoint(server, make_transport, clock):
    limits = BrazeLimits(cohort=Limit(1, 100.0), track=Limit(1, 10.0), pool=Limit(1, 1000.0))
    client = BrazeClient(make_transport(), KEYS, limits, clock=clock)
    started = clock.now()
    client.name_cohort("c", "n", datetime.now(UTC))
    client.set_attributes([{"external_id": "anna"}])
    client.check_rest_key()
    assert clock.now() == started
    client.set_attributes([{"external_id": "anna"}])
    assert clock.now() - started == pytest.approx(10.0, rel=0.01)
    client.change_cohort("c", [ADDS])
    assert clock.now() - started == pytest.approx(100.0, rel=0.01)
    assert client.cohort_budget.seconds_for(2) == pytest.approx(200.0, rel=0.01)
    assert client.track_budget.seconds_for(2) == pytest.approx(20.0, rel=0.01)


def test_the_limits_are_those_that_braze_documents():
    assert BrazeLimits() == BrazeLimits(
        cohort=Limit(250_000, 3600.0),
        track=Limit(3000, 3.0),
        pool=Limit(250_000, 3600.0),
        attributes_per_request=75,
        ids=Limit(250, 60.0),
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda client, **more: client.change_cohort("c", [ADDS], **more),
        lambda client, **more: client.set_attributes([{"external_id": "anna"}], **more),
    ],
)
def test_lane_and_check_reach_the_transport(server, client, reply, call):
    server.script(reply(423))
    lane, checks = AdaptiveConcurrency(8), []
    call(client, lane=lane, check=lambda: checks.append(1))
    assert (lane.level, len(checks)) == (4, 2)


def test_a_check_before_the_name_is_given(server, client):
    def lost():
        raise PermissionError

    with pytest.raises(PermissionError):
        client.name_cohort("c", "n", datetime.now(UTC), check=lost)
    assert server.recorded == []


def test_it_tells_where_it_sends_and_what_it_did(server, client):
    with client:
        client.change_cohort("c", [ADDS])
    assert client.base_url == server.url
    assert client.statistics() == {"requests": 1, "waits": 0, "seconds_waited": 0, "by_status": {"201": 1}}

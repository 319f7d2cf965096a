"""What the hooks put on the wire, and what the connection test tells."""

from __future__ import annotations

import base64
import json
import socket

import pytest
from airflow.models.connection import Connection as StoredConnection

from airflow_provider_heapbraze.clients.braze import BrazeLimits, CohortChange, Limit
from airflow_provider_heapbraze.clients.errors import ConfigurationError
from airflow_provider_heapbraze.hooks.braze import BrazeHook
from airflow_provider_heapbraze.hooks.heap import HeapHook

REST_KEY = "secret-rest-api-key"
PARTNER_KEYS = {"partner_api_key": "secret-partner-api-key", "data_import_key": "secret-data-import-key"}
HEAP_KEY = "secret-heap-api-key"
SECRETS = [REST_KEY, *PARTNER_KEYS.values(), HEAP_KEY]
COHORT_USERS = "/partners/heap/cohorts/users"
SEGMENTS = "/segments/list"
TOKEN = "/api/public/v0/auth_token"


@pytest.fixture
def braze(vendor, connection):
    def hook(password=REST_KEY, host=None, **extra):
        conn_id = connection("braze", host=host or vendor.url, login="nobody", password=password, extra=extra)
        return BrazeHook(conn_id)

    return hook


@pytest.fixture
def heap(vendor, connection):
    def hook(password=HEAP_KEY, host=None, login="123456", **extra):
        conn_id = connection("heap", host=host or vendor.url, login=login, password=password, extra=extra)
        return HeapHook(conn_id)

    return hook


@pytest.fixture
def nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def try_connection(hook):
    """Return what the test says, after looking that it says no secret."""
    good, message = hook.test_connection()
    assert not [secret for secret in SECRETS if secret in message]
    return good, message


def test_partner_keys_go_into_the_body_and_nowhere_else(vendor, braze):
    vendor.answers[COHORT_USERS] = (201, {})
    with braze(**PARTNER_KEYS).get_conn() as client:
        client.change_cohort("a-cohort", [CohortChange(["a-person"], [], [], should_remove=False)])
    (request,) = vendor.requests
    body = json.loads(request.body)
    assert (body["partner_api_key"], body["client_secret"]) == tuple(PARTNER_KEYS.values())
    assert request.path == COHORT_USERS
    assert sorted(request.headers) == [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    ]
    assert request.headers["user-agent"].startswith("partner-Heap-AirflowProvider/")


def test_the_rest_key_goes_into_its_header_and_nowhere_else(vendor, braze):
    vendor.answers["/users/track"] = (201, {"message": "success"})
    with braze(**PARTNER_KEYS).get_conn() as client:
        client.set_attributes([{"external_id": "a-person", "in_cohort": True}])
    (request,) = vendor.requests
    assert request.headers.pop("authorization") == f"Bearer {REST_KEY}"
    rest = f"{request.path} {request.headers} {request.body}"
    assert not [secret for secret in SECRETS if secret in rest]
    assert request.headers["user-agent"].startswith("airflow-provider-heapbraze/")


@pytest.mark.parametrize(
    ("extra", "requests"),
    [({}, 250), ({"ids_requests_per_minute": 2500}, 2500), ({"ids_requests_per_minute": "40"}, 40)],
)
def test_how_many_profiles_are_read_is_a_setting(braze, extra, requests):
    with braze(**extra).get_conn() as client:
        assert client.limits.ids == (requests, 60.0)
        assert client.limits == BrazeLimits(ids=Limit(requests, 60.0))


def test_what_the_workspace_holds_is_read_with_the_rest_key(vendor, braze):
    vendor.answers["/segments/details"] = (200, {"message": "success", "name": "Winter buyers"})
    with braze().get_conn() as client:
        assert client.reads.segment_name("a-segment") == "Winter buyers"
    (request,) = vendor.requests
    assert request.headers["authorization"] == f"Bearer {REST_KEY}"


@pytest.mark.parametrize(
    ("hook", "extra"), [("braze", "ids_requests_per_minute"), ("heap", "property_requests_per_30_seconds")]
)
@pytest.mark.parametrize("value", [0, "many", 1.5])
def test_a_limit_that_is_none_is_refused(request, hook, extra, value):
    with pytest.raises(ConfigurationError, match=extra):
        request.getfixturevalue(hook)(**{extra: value}).get_conn()


def test_a_partner_may_name_itself(vendor, braze):
    vendor.answers[COHORT_USERS] = (201, {})
    try_connection(braze(partner_user_agent="partner-Acme-Sync/2", **PARTNER_KEYS))
    assert vendor.requests[0].headers["user-agent"] == "partner-Acme-Sync/2"


def test_good_keys(vendor, braze):
    vendor.answers |= {COHORT_USERS: (400, {"message": "empty"}), SEGMENTS: (200, {"message": "success"})}
    good, message = try_connection(braze(**PARTNER_KEYS))
    assert good
    assert "cohort delivery is possible" in message
    assert "attribute delivery is possible if it has users.track" in message
    assert "lacks" not in message
    assert json.loads(vendor.requests[0].body)["cohort_changes"] == []
    assert vendor.requests[1].method == "GET"


def test_as_the_ui_does_it(vendor, monkeypatch):
    vendor.answers |= {COHORT_USERS: (201, {}), SEGMENTS: (200, {"message": "success"})}
    form = StoredConnection(
        conn_id="from_the_form",
        conn_type="braze",
        host=vendor.url,
        password=REST_KEY,
        extra=json.dumps({"instance": None, "partner_name": "heap", **PARTNER_KEYS}),
    )
    monkeypatch.setenv("AIRFLOW_CONN_FROM_THE_FORM", form.get_uri())
    good, message = form.test_connection()
    assert good, message
    assert [request.path.split("?")[0] for request in vendor.requests] == [COHORT_USERS, SEGMENTS]


def test_only_a_rest_key(vendor, braze):
    vendor.answers[SEGMENTS] = (200, {"message": "success"})
    good, message = try_connection(braze())
    assert good
    assert message.startswith(
        "Cohort delivery needs partner_api_key and data_import_key. The REST API key is"
    )


def test_only_partner_keys(vendor, braze):
    vendor.answers[COHORT_USERS] = (201, {})
    good, message = try_connection(braze(password=None, **PARTNER_KEYS))
    assert good
    assert message.endswith("Attribute delivery needs a REST API key as the password.")


@pytest.mark.parametrize("given", PARTNER_KEYS)
def test_half_of_the_partner_keys(vendor, braze, given):
    vendor.answers[SEGMENTS] = (200, {"message": "success"})
    good, message = try_connection(braze(**{given: PARTNER_KEYS[given]}))
    (missing,) = PARTNER_KEYS.keys() - {given}
    assert not good
    assert f"Cohort delivery needs {missing}." in message


def test_no_key_at_all(vendor, braze):
    good, message = try_connection(braze(password=None))
    assert not good
    assert "Cohort delivery needs" in message
    assert "Attribute delivery needs" in message
    assert vendor.requests == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Invalid Partner API key", "partner_api_key"),
        ("Invalid client secret", "data_import_key"),
        (
            f"Partner not enabled for client with client secret: {PARTNER_KEYS['data_import_key']}",
            "the partner is not enabled for the customer",
        ),
        ("Unauthorized access", "access is not authorized"),
    ],
)
def test_refused_partner_keys(vendor, braze, text, names):
    vendor.answers |= {COHORT_USERS: (401, {"message": text}), SEGMENTS: (200, {"message": "success"})}
    good, message = try_connection(braze(**PARTNER_KEYS))
    assert not good
    assert names in message
    assert "A wrong instance looks the same" in message
    assert "The REST API key is accepted" in message


def test_refused_rest_key(vendor, braze):
    vendor.answers |= {COHORT_USERS: (201, {}), SEGMENTS: (401, {"message": f"Invalid API key: {REST_KEY}"})}
    good, message = try_connection(braze(**PARTNER_KEYS))
    assert not good
    assert "cohort delivery is possible" in message
    assert "the REST API key was refused" in message


def test_a_rest_key_that_may_not_list_segments_is_good_for_delivery(vendor, braze):
    vendor.answers[SEGMENTS] = (403, {"message": "no permission"})
    good, message = try_connection(braze())
    assert good
    assert "It lacks segments.list, which delivery does not need." in message


def test_a_host_that_is_no_braze(vendor, braze):
    good, message = try_connection(braze(**PARTNER_KEYS))
    assert not good
    assert "Look at the connection's partner_name and host" in message


@pytest.mark.parametrize("status", [429, 503])
def test_nobody_is_kept_waiting(vendor, braze, status):
    vendor.answers[SEGMENTS] = (status, {})
    good, message = try_connection(braze())
    assert not good
    assert f"answered {status}" in message
    assert len(vendor.requests) == 1


def test_no_braze_there(braze, nobody_there):
    good, message = try_connection(braze(host=nobody_there))
    assert not good
    assert "gave no answer" in message


def test_a_braze_connection_without_an_address(connection):
    good, message = BrazeHook(connection("braze", password=REST_KEY)).test_connection()
    assert not good
    assert "Fill in the host" in message


@pytest.mark.parametrize(("extra", "seconds"), [({}, 1.0), ({"property_requests_per_30_seconds": 300}, 0.1)])
def test_how_fast_user_properties_are_set_is_a_setting(vendor, heap, extra, seconds):
    vendor.answers["/api/add_user_properties"] = (200, {})
    with heap(**extra).get_conn() as client:
        client.set_user_properties([("a-person", {"in_segment": "true"})])
        assert client.property_budget.seconds_for(1) == pytest.approx(seconds, rel=0.01)
    (request,) = vendor.requests
    assert json.loads(request.body)["users"] == [
        {"identity": "a-person", "properties": {"in_segment": "true"}}
    ]
    assert "authorization" not in request.headers


def test_good_heap_key(vendor, heap):
    vendor.answers[TOKEN] = (200, {"access_token": "a-token"})
    assert try_connection(heap()) == (True, "The app id and the API key are accepted.")
    (request,) = vendor.requests
    expected = base64.b64encode(f"123456:{HEAP_KEY}".encode()).decode()
    assert request.headers["authorization"] == f"Basic {expected}"


def test_refused_heap_key(vendor, heap):
    vendor.answers[TOKEN] = (401, {"error": f"{HEAP_KEY} is wrong"})
    good, message = try_connection(heap())
    assert not good
    assert "the API key was refused" in message


def test_heap_without_a_key_is_only_looked_for(vendor, heap):
    good, message = try_connection(heap(password=None))
    assert good
    assert message.startswith("Heap answers. Whether it knows the app id cannot be tried")
    assert [(request.method, request.path) for request in vendor.requests] == [("HEAD", "/")]


def test_no_heap_there(heap, nobody_there):
    good, message = try_connection(heap(host=nobody_there, password=None))
    assert not good
    assert "gave no answer" in message


def test_a_heap_connection_without_an_app_id(heap):
    good, message = try_connection(heap(login=None))
    assert not good
    assert "fill in the app id" in message


@pytest.mark.parametrize(
    ("region", "base_url"),
    [
        (None, "https://heapanalytics.com"),
        ("us", "https://heapanalytics.com"),
        ("EU", "https://c.eu.heap-api.com"),
    ],
)
def test_the_region_says_where_heap_is(connection, region, base_url):
    client = HeapHook(connection("heap", login="123456", extra={"region": region})).get_conn()
    assert client._transport.base_url == base_url


def test_secrets_of_what_is_pushed(braze, heap):
    """Several are valid at once, while one takes the place of another."""
    assert heap(webhook_secret="secret-of-march, secret-of-april\n").get_webhook_secrets() == (
        "secret-of-march",
        "secret-of-april",
    )
    assert braze(currents_token=" token-of-the-connector ").get_currents_tokens() == (
        "token-of-the-connector",
    )
    assert heap().get_webhook_secrets() == braze(currents_token="").get_currents_tokens() == ()

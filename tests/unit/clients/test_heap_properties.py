"""Which user properties are written to Heap, how fast, and what its answers mean."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_heapbraze.clients.budget import Limit
from airflow_provider_heapbraze.clients.concurrency import AdaptiveConcurrency
from airflow_provider_heapbraze.clients.errors import (
    HeapBrazeError,
    InterruptedCallError,
    NoAnswerError,
    PayloadTooLargeError,
    RequestRejectedError,
    ServerError,
)
from airflow_provider_heapbraze.clients.heap import USERS_PER_REQUEST, HeapClient

APP_ID, PERSON, VALUE = "secret-app-id-005", "person-identity-006", "property-value-007"
QUOTE = f"{APP_ID} {PERSON} {VALUE}"


@pytest.fixture
def client(make_transport, clock):
    return HeapClient(make_transport(), APP_ID, clock=clock)


def write(client, **settings):
    client.set_user_properties([(PERSON, {"in segment": VALUE})], **settings)


def test_users_go_as_documented(server, client):
    client.set_user_properties(
        [("Ann", {"in segment": "true", "score": 7}), ("ben ü", {"share": 0.5, "umlaut": "ä"})]
    )
    assert (server.only.method, server.only.path) == ("POST", "/api/add_user_properties")
    assert server.only.headers["Content-Type"] == "application/json"
    assert "Authorization" not in server.only.headers
    assert server.only.body == {
        "app_id": APP_ID,
        "users": [
            {"identity": "Ann", "properties": {"in segment": "true", "score": 7}},
            {"identity": "ben ü", "properties": {"share": 0.5, "umlaut": "ä"}},
        ],
    }


def test_a_thousand_users_are_one_request(server, client):
    client.set_user_properties([(f"person-{number}", {"a": 1}) for number in range(USERS_PER_REQUEST)])
    assert [one["identity"] for one in server.only.body["users"]] == [f"person-{n}" for n in range(1_000)]


@pytest.mark.parametrize("status", [200, 201, 204])
@pytest.mark.parametrize("body", [b"", b"OK", {}])
def test_any_2xx_is_a_success_whatever_its_body(server, client, reply, status, body):
    server.script(reply(status, b"" if status == 204 else body))
    write(client)
    assert len(server.recorded) == 1


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (400, RequestRejectedError, "refuses a user, or does not know the app id"),
        (413, PayloadTooLargeError, "too large"),
        (404, RequestRejectedError, "404"),
    ],
)
def test_a_refusal_is_told_at_once(server, client, reply, status, error, says):
    server.default = reply(status, {"message": QUOTE})
    with pytest.raises(error, match=says) as caught:
        write(client)
    assert caught.value.status == status
    assert len(server.recorded) == 1


@pytest.mark.parametrize(
    ("trouble", "error"), [({"status": 502}, ServerError), ({"cut": True}, NoAnswerError)]
)
def test_what_may_pass_is_tried_again_and_then_given_up(server, client, reply, trouble, error):
    server.default = reply(**trouble)
    with pytest.raises(error):
        write(client)
    assert [request.body for request in server.recorded] == [server.recorded[0].body] * 3


@pytest.mark.parametrize(("settings", "seconds"), [({}, 1.0), ({"property_limit": Limit(10, 100.0)}, 10.0)])
def test_requests_are_paced(server, make_transport, clock, settings, seconds):
    client = HeapClient(make_transport(), APP_ID, clock=clock, **settings)
    started = clock.now()
    for _ in range(11):
        write(client)
    assert clock.now() - started == pytest.approx(10 * seconds, rel=0.01)
    assert client.property_budget.seconds_for(3) == pytest.approx(3 * seconds, rel=0.01)


def test_events_do_not_wait_for_properties(server, client, clock):
    write(client)
    started = clock.now()
    client.track([b"{}"], check=lambda: None)
    assert clock.now() == started


def test_lane_and_check_reach_the_transport(server, client, reply):
    server.script(reply(423))
    lane, checks = AdaptiveConcurrency(8), []
    write(client, lane=lane, check=lambda: checks.append(1))
    assert (lane.level, len(checks)) == (4, 2)


def test_nothing_is_sent_where_the_check_says_no(server, client):
    def check():
        raise PermissionError

    with pytest.raises(PermissionError):
        write(client, check=check)
    assert server.recorded == []


def test_an_interrupted_client_sends_nothing(server, client):
    client.interrupt()
    with pytest.raises(InterruptedCallError):
        write(client)
    assert server.recorded == []


ANSWERS = {
    "success": {"status": 200, "body": {"message": QUOTE}},
    "redirect": {"status": 307, "headers": {"Location": f"/elsewhere?{PERSON}"}},
    "refused": {"status": 400, "body": {"message": QUOTE}},
    "too many": {"status": 429, "body": QUOTE.encode(), "headers": {"Retry-After": "3000"}},
    "failed": {"status": 500, "body": QUOTE.encode(), "headers": {"Retry-After": QUOTE}},
    "cut in the body": {"status": 200, "body": QUOTE.encode(), "missing": 10},
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_nothing_private_is_shown(server, client, reply, caplog, answer):
    caplog.set_level(logging.DEBUG)
    server.default = reply(**answer)
    shown = [repr(client), str(client.statistics())]
    try:
        write(client)
    except HeapBrazeError as error:
        shown.append(f"{error!r} {vars(error)} {error.__context__!r}")
    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    shown += [f"{request.path} {request.headers}" for request in server.recorded]
    assert VALUE in server.recorded[0].content.decode(), "else there would be nothing to show"
    assert [text for text in shown if any(secret in text for secret in (APP_ID, PERSON, VALUE))] == []

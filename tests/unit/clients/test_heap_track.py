"""What is written to Heap, what its answers mean, and what is never shown."""

from __future__ import annotations

import json
import logging

import pytest

from airflow_provider_heapbraze.clients.errors import (
    AuthenticationError,
    HeapBrazeError,
    InterruptedCallError,
    NoAnswerError,
    PayloadTooLargeError,
    PermanentError,
    PermissionDeniedError,
    RequestRejectedError,
    ServerError,
)
from airflow_provider_heapbraze.clients.heap import EVENTS_PER_REQUEST, HeapClient

APP_ID, PERSON = "secret-app-id-005", "person-identity-006"
QUOTE = f"{APP_ID} {PERSON}"


@pytest.fixture
def client(make_transport, clock):
    return HeapClient(make_transport(), APP_ID, clock=clock)


def event(identity=PERSON, **changes):
    whole = {
        "identity": identity,
        "event": "Email opened",
        "timestamp": "2026-11-24T10:00:00+00:00",
        "idempotency_key": "key-00000001",
        "properties": {"braze_event_type": "users.messages.email.Open"},
        **changes,
    }
    return json.dumps(whole).encode()


def track(client, *events, check=lambda: None):
    client.track(events or (event(),), check=check)


def everything_of(error):
    """Return an exception and all that hangs on it, as text."""
    seen = []
    while error is not None:
        seen.append(f"{error} {error!r} {error.args} {vars(error)}")
        error = error.__context__
    return " ".join(seen)


def test_events_go_as_documented(server, client):
    track(client, event("ann"), event("bob", properties={"half": "\ud83d", "umlaut": "ä"}))
    assert (server.only.method, server.only.path) == ("POST", "/api/track")
    assert server.only.headers["Content-Type"] == "application/json"
    assert "Authorization" not in server.only.headers
    assert server.only.body == {
        "app_id": APP_ID,
        "events": [
            json.loads(event("ann")),
            json.loads(event("bob", properties={"half": "\ud83d", "umlaut": "ä"})),
        ],
    }


def test_a_thousand_events_are_one_request(server, client):
    track(client, *(event(f"person-{number}") for number in range(EVENTS_PER_REQUEST)))
    assert [one["identity"] for one in server.only.body["events"]] == [f"person-{n}" for n in range(1_000)]


def test_an_app_id_may_be_any_text(server, make_transport, clock):
    track(HeapClient(make_transport(), 'a"b\\ä', clock=clock))
    assert server.only.body["app_id"] == 'a"b\\ä'


@pytest.mark.parametrize("status", [200, 201, 204])
@pytest.mark.parametrize("body", [b"", b"OK", {}])
def test_any_2xx_is_a_success_whatever_its_body(server, client, reply, status, body):
    server.script(reply(status, b"" if status == 204 else body))
    track(client)
    assert len(server.recorded) == 1


def test_a_refusal_is_told_at_once(server, client, reply):
    server.default = reply(400, {"message": QUOTE})
    with pytest.raises(RequestRejectedError, match="refuses an event, or does not know the app id") as caught:
        track(client)
    assert caught.value.status == 400
    assert len(server.recorded) == 1


def test_too_large_is_told_at_once(server, client, reply):
    server.default = reply(413)
    with pytest.raises(PayloadTooLargeError) as caught:
        track(client)
    assert caught.value.status == 413
    assert len(server.recorded) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, PermanentError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, RequestRejectedError),
    ],
)
def test_other_refusals_are_permanent_too(server, client, reply, status, error):
    server.default = reply(status)
    with pytest.raises(error) as caught:
        track(client)
    assert isinstance(caught.value, PermanentError)
    assert len(server.recorded) == 1


def test_it_waits_as_long_as_it_is_told(server, client, reply, clock):
    started = clock.now()
    server.script(reply(429, headers={"Retry-After": "90"}))
    track(client)
    assert 90 <= clock.now() - started < 92
    assert len(server.recorded) == 2


def test_waits_use_up_no_tries(server, client, reply):
    server.script(*[reply(429, headers={"Retry-After": "1"})] * 10)
    track(client)
    assert len(server.recorded) == 11


@pytest.mark.parametrize(
    "trouble", [{"status": 500}, {"status": 503}, {"status": 408}, {"cut": True}, {"missing": 9}]
)
def test_what_may_pass_is_tried_again(server, client, reply, trouble):
    server.script(*[reply(**trouble)] * 2)
    track(client)
    assert [request.body for request in server.recorded] == [server.recorded[0].body] * 3


@pytest.mark.parametrize(
    ("trouble", "error"), [({"status": 502}, ServerError), ({"cut": True}, NoAnswerError)]
)
def test_tries_are_used_up(server, client, reply, trouble, error):
    server.default = reply(**trouble)
    with pytest.raises(error):
        track(client)
    assert len(server.recorded) == 3


def test_there_is_a_check_before_each_try(server, client, reply):
    server.script(reply(500), reply(429, headers={"Retry-After": "2"}), reply(cut=True))
    sent_before = []
    track(client, check=lambda: sent_before.append(len(server.recorded)))
    assert sent_before == [0, 1, 2, 3]


def test_nothing_is_sent_where_the_check_says_no(server, client, reply):
    def check():
        if server.recorded:
            raise InterruptedCallError("no")

    server.script(reply(500))
    with pytest.raises(InterruptedCallError, match="no"):
        track(client, check=check)
    assert len(server.recorded) == 1


def test_the_check_comes_after_the_wait(server, client, reply, clock):
    """Room that is taken in a check is not used up by waiting."""
    checked_at = []
    server.script(reply(429, headers={"Retry-After": "300"}))
    server.before_answer = lambda: sent_at.append(clock.now())
    sent_at = []
    track(client, check=lambda: checked_at.append(clock.now()))
    assert sent_at == checked_at


def test_an_interrupted_client_sends_nothing(server, client):
    client.interrupt()
    with pytest.raises(InterruptedCallError):
        track(client)
    assert server.recorded == []


ANSWERS = {
    "success": {"status": 200, "body": {"message": QUOTE}},
    "redirect": {"status": 307, "body": QUOTE.encode(), "headers": {"Location": f"/elsewhere?{PERSON}"}},
    "refused": {"status": 400, "body": {"message": QUOTE}},
    "key refused": {"status": 401, "body": {"message": QUOTE}},
    "not allowed": {"status": 403, "body": {"message": QUOTE}},
    "too large": {"status": 413, "body": QUOTE.encode()},
    "too many": {"status": 429, "body": {"message": QUOTE}, "headers": {"Retry-After": "3000"}},
    "failed": {
        "status": 500,
        "body": {"message": QUOTE},
        "headers": {"Retry-After": QUOTE, "X-Quote": QUOTE},
    },
    "cut": {"cut": True},
    "cut in the body": {"status": 200, "body": QUOTE.encode(), "missing": 10},
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_nothing_private_is_shown(server, client, reply, caplog, answer):
    caplog.set_level(logging.DEBUG)
    server.default = reply(**answer)
    shown = [repr(client), str(client.statistics())]
    try:
        track(client)
    except HeapBrazeError as error:
        shown.append(everything_of(error))
    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    shown += [f"{request.path} {request.headers}" for request in server.recorded]
    assert APP_ID in server.recorded[0].content.decode(), "else there would be nothing to show"
    assert [text for text in shown if APP_ID in text or PERSON in text] == []
